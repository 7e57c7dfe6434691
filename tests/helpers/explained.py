"""Whether docs/troubleshooting.md explains what a program has printed."""

import importlib
import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "docs"))
messages = importlib.import_module("messages")

# The text before this is an entry of its own, or a message of argparse, which are in a table of the page.
OPTIONS = "… (python … --help lists the options)"


def explained(line: str) -> bool:
    """Whether a line of standard error, or the text of a UserError or TrainingError, matches an entry."""
    page = messages.PAGE.read_text(encoding="utf-8")
    message, templates = messages.bare(line), set(messages.entries(page)) - {OPTIONS}
    if messages.matches(OPTIONS, message):
        message = re.sub(r"^argument --[a-z-]+: | \(python .*", "", message)
        templates |= set(re.findall(r"^\| `(.+)` \|", page[page.index("## Options") : page.index("## Data")], re.MULTILINE))
    return any(messages.matches(template, message) for template in templates)
