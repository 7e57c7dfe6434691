"""docs/troubleshooting.md explains every message that the source makes, and no other."""

import re
import shutil
import textwrap

import pytest

from alexnet.commands import compare, report
from minidl.errors import UserError

from ..helpers import experiments
from ..helpers.explained import explained, messages

PAGE = messages.PAGE.read_text(encoding="utf-8")


def test_every_message_has_an_entry_and_every_entry_a_message():
    missing, gone = messages.differences(PAGE)
    assert not missing, "python docs/generate.py puts them at the end of the page, to be explained"
    assert not gone


def test_no_message_has_two_entries():
    templates = messages.entries(PAGE) + messages.reasons(PAGE)
    assert len(templates) == len(set(templates))


def test_every_variable_is_explained():
    """Each environment variable MINIDL_... has an entry with its name."""
    named = {name for text in messages.source().values() for name in re.findall(r"\bMINIDL_[A-Z]+\b", text)}
    assert {name for name in named if f"| `{name}` |" not in PAGE} == set()


ENTRY = "`… is given twice`\\\nCause: the same run.\\\nCure: give it\nonce.\n"
TWO = "`one way …`\\\n`another way`\\\nCause: this.\\\nCure: that.\n"
ROWS = (
    "## Reasons\n\n| reason | cause |\n|---|---|\n| `no file`<br>`it is …` | remove it |\n\n## Others\n\n| `not ours` | see |\n"
)
SMALL = f"# Troubleshooting\n\n{ENTRY}\n{TWO}\n{ROWS}"
SMALL_MADE = dict.fromkeys(["… is given twice", "one way …", "another way", "no file", "it is …"], "alexnet/some.py")


def test_a_complete_page_has_no_differences(monkeypatch):
    monkeypatch.setattr(messages, "made", lambda: SMALL_MADE)
    assert messages.differences(SMALL) == ({}, []) and messages.with_stubs(SMALL) == SMALL


@pytest.mark.parametrize("stub", ["Cause: ", "Cause: \\\nCure: this", "Cause: that\\\nCure: ", "Cause: that", "Cure: this"])
def test_a_stub_does_not_count_as_an_entry(stub, monkeypatch):
    """An entry without a cause or a cure counts as missing, and is listed once at the end of the page."""
    monkeypatch.setattr(messages, "made", lambda: SMALL_MADE)
    page = SMALL.replace(ENTRY, f"`… is given twice`\\\n{stub}\n").replace("| remove it |", "|  |")
    missing, gone = messages.differences(page)
    assert list(missing) == ["… is given twice", "no file", "it is …"] and not gone
    stubbed = messages.with_stubs(page)
    names = "".join(f"- `{template}` (alexnet/some.py)\n" for template in missing)
    assert stubbed == f"{page}\n## Not explained yet\n\n{names}"
    assert messages.with_stubs(stubbed) == stubbed and messages.differences(stubbed) == (missing, gone)
    monkeypatch.setattr(messages, "made", lambda: {"one way …": "", "another way": ""})
    assert messages.with_stubs(stubbed) == page


def test_an_entry_without_a_message_is_found(monkeypatch):
    monkeypatch.setattr(messages, "made", lambda: {"one way …": "", "no file": ""})
    assert messages.differences(SMALL) == ({}, ["… is given twice", "another way", "it is …"])


# --- how messages are found in the source -----------------------------------------------------------------------------

# (a source, its messages, its reasons)
MADE = {
    "an error": ('raise UserError("give a number")', {"give a number"}, set()),
    "an error of a module": ('raise argparse.ArgumentTypeError(f"{x} is wrong here")', {"… is wrong here"}, set()),
    "an error derived from one": ('class A(B): pass\nclass B(UserError): pass\nA("give a number")', {"give a number"}, set()),
    "another error": ('raise TypeError("give a number")', set(), set()),
    "a name": ('raise UserError("alexnet")', set(), set()),
    "a function that prints": (
        'entry.tell(f"warning: it is {x}")\nend_with("the end", 1)\nself.error("no option")',
        {"warning: it is …", "the end", "no option"},
        set(),
    ),
    "print": ('print("to be seen", file=sys.stderr)\nprint("to be read", file=sys.stdout)\nprint("a b")', {"to be seen"}, set()),
    "what is put before it": (
        'tell(f"error: it is {x}")\ntell(f"training failed: {x}")\ntell("rank 3: no way")',
        {"it is …", "no way"},
        set(),
    ),
    "a choice": ('UserError("one way" if x else "another way")', {"one way", "another way"}, set()),
    "a choice within": ("UserError(f\"it is {'so and so' if x else y}\")", {"it is so and so", "it is …"}, set()),
    "a choice of a name": ("UserError(f\"it is {'numpy' if x else y} here\")", {"it is … here"}, set()),
    "a quoted text": ("UserError(f\"there is no {'red and blue'!r}\")", {"there is no …"}, set()),
    "nothing or something": (
        "UserError(f\"it is here{', and there' if x else ''}\")",
        {"it is here", "it is here, and there"},
        set(),
    ),
    "or": ('UserError(x or "no words")', {"no words"}, set()),
    "an assignment": (
        'def f():\n  x = "one way"\n  x: str = "another way"\n  raise UserError(x)',
        {"one way", "another way"},
        set(),
    ),
    "an assignment within": ('def f():\n  if x := "one way": raise UserError(x)', {"one way"}, set()),
    "None": ('def f():\n  x = None\n  x = "one way"\n  raise UserError(f"{x}, so it is")', {"one way, so it is"}, set()),
    "an assignment in another function": (
        'def f():\n  x = "one way"\ndef g():\n  raise UserError(f"{x}, so it is")',
        {"…, so it is"},
        set(),
    ),
    "a constant": ('URL = "some where"\ndef f():\n  UserError(f"get {URL}")', {"get some where"}, set()),
    "a table": ('T = {1: "no driver"}\ndef f(e):\n  UserError(f"here: {T.get(e, e)}!")', {"here: no driver!"}, set()),
    "a table that is not known": ('def f(t):\n  UserError(f"it is {t.get(1, 2)}")', {"it is …"}, set()),
    "what a function returns": (
        'def f():\n  def g(): return "a hook is"\n  return "one way"\ndef h(): UserError(f()); UserError(f"so: {f()}")',
        {"one way", "so: one way"},
        set(),
    ),
    "one of what a function returns": (
        'def f():\n  return 2, "one way"\ndef h():\n  status, line = f()\n  status, line = 1, "another way"\n  tell(line)',
        {"one way", "another way"},
        set(),
    ),
    "what defines itself": ('def f():\n  x = f"{x} of itself"\n  UserError(x)', {"… of itself"}, set()),
    "what a function is given": (
        'def f(why, what="x"):\n  def g(): UserError(f"{why}; {what}, do that")\nf("one way")\nf(1, what="another way")',
        {"one way; another way, do that", "…; another way, do that"},
        set(),
    ),
    "what a method is given": ('class A:\n  def f(self, why): UserError(f"{why}, so do")\nf(1, "one way")', {"…, so do"}, set()),
    "a reason": ('raise ValueError(f"it is {x}")\nraise FileNotFoundError(1, "no folder")', set(), {"it is …", "no folder"}),
    "a reason in parentheses": (
        'def f(why): UserError(f"{x} is damaged ({why}); remove it")\nf("no data")\nf(x)',
        {"… is damaged (…); remove it"},
        {"no data"},
    ),
    "a report of a process": (
        'return_ = "ended", f"was killed by {x}" if x else "is gone"',
        {"rank … was killed by …", "rank … is gone"},
        set(),
    ),
    "a case of another": (
        'UserError(f"{x} (see there {y})")\nUserError(f"{x}: {y} (see there {y})")',
        {"… (see there …)"},
        set(),
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_messages_are_found(name):
    source, expected, reasons = MADE[name]
    found = messages.Collector({"alexnet/some.py": textwrap.dedent(source)})
    assert (set(found.messages), set(found.reasons)) == (expected, reasons)


def test_messages_are_found_across_modules():
    """Through the arguments and return values of functions in other modules; errors for programmers are left out."""
    found = messages.Collector(
        {
            "alexnet/one.py": 'def number(name):\n  UserError(f"it is not {name}")\ndef why(): return "no way"',
            "alexnet/two.py": 'from .one import number, why\nnumber("an integer")\nUserError(f"look: {why()}")',
            "alexnet/three.py": 'from . import one\nUserError(f"see: {one.why()}")\nnumber("of another")\nUserError(why())',
            "minidl/nn/layers.py": 'raise ValueError("a wrong shape")\nraise UserError("a wrong device")',
        }
    )
    assert found.messages == {
        "it is not an integer": "alexnet/one.py",
        "look: no way": "alexnet/two.py",
        "see: no way": "alexnet/three.py",
        "a wrong device": "minidl/nn/layers.py",
    }
    assert not found.reasons


# --- printed messages are explained -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "there is no such message",
        "train.py: error: there is no such message (python train.py --help lists the options)",
        "argument --epochs: there is no such message (python train.py --help lists the options)",
        "exists already",
        "",
    ],
)
def test_other_lines_are_not_explained(line):
    assert not explained(line)


def test_printed_lines_are_explained():
    assert explained("train.py: stopped and saved; resume with: python train.py --resume runs/one")
    assert explained("train.py: training failed: rank 1 was killed by SIGKILL")
    assert explained("train.py: rank 0: ValueError: no (its traceback is in runs/one/traceback.txt)")
    assert explained("alexnet: error: there is no command foo; there are train, report, compare (python -m alexnet --help)")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert experiments.run(*experiments.TINY, "--epochs", 1, "--out", folder) == (0, "")
    return folder


@pytest.mark.parametrize(
    "options",
    [
        ["--epochs", "0"],
        ["--epochs"],
        ["--epochs=--"],
        ["--tensorboard=yes"],
        ["--seed", "-1"],
        ["--lr", "nan"],
        ["--save-minutes", "0"],
        ["--devices", "0,0"],
        ["--backend", "torch"],
        ["--parallel-universe"],
        ["--precision", "tf32"],
        ["--data", "mnist"],
        ["--data", "."],
        ["--data", "cifar10", "--data-dir", "incomplete"],
        ["--data", "cifar10", "--data-dir", "damaged"],
        ["--model", "alexnet-2012"],
        ["--limit-train", "1438"],
        ["--image-size", "32"],
        ["--out", "."],
        ["--out", "file/run"],
        ["--lr", "1e30"],
    ],
    ids=" ".join,
)
def test_refusals_of_a_new_run_are_explained(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "incomplete" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    status, message = experiments.run(*experiments.TINY, *options)
    assert status and explained(message), message


@pytest.mark.parametrize(
    "variable", ["MINIDL_TIMEOUT", "MINIDL_KERNELS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"]
)
def test_refusals_of_the_environment_are_explained(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "x")
    status, message = experiments.run(*experiments.TINY, "--out", tmp_path / "run")
    assert status == 2 and explained(message), message


def replaced(name, old, new):
    def damage(folder):
        file = folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return damage


def cut(folder):
    experiments.checkpoints(folder)[-1].write_bytes(b"")


def linked(folder):
    (folder / "metrics.jsonl").rename(folder / "elsewhere")
    (folder / "metrics.jsonl").symlink_to(folder / "elsewhere")


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda folder: (folder / "config.json").unlink(),
        replaced("config.json", '"seed"', '"sea"'),
        replaced("config.json", '"seed": 0', '"seed": 1'),
        replaced("config.json", '"world_size": 1', '"world_size": 2'),
        replaced("metrics.jsonl", "{", "["),
        replaced("metrics.jsonl", '"epoch": 1', '"epoch": 2'),
        lambda folder: (folder / "metrics.jsonl").unlink(),
        linked,
        cut,
    ],
)
def test_refusals_to_resume_are_explained(damage, stopped, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    damage(folder)
    status, message = experiments.run("--resume", folder, "--epochs", 2)
    assert status == 2 and explained(message), message


@pytest.mark.parametrize("options", [["--lr", "1"], ["--epochs", "0"], ["--devices", "0,0"], ["--data-dir", "."]], ids=" ".join)
def test_refusals_to_change_a_run_are_explained(options, stopped):
    status, message = experiments.run("--resume", stopped, *options)
    assert status == 2 and explained(message), message


def test_refusals_of_the_other_commands_are_explained(stopped, tmp_path):
    with experiments.tiny_network():
        for command, arguments in [
            (report, []),
            (report, [tmp_path]),
            (compare, [stopped, stopped]),
            (compare, [stopped, "--out", tmp_path]),
            (compare, [stopped, "--out", tmp_path / "no" / "page.html"]),
        ]:
            with pytest.raises(UserError) as raised:
                command.main([str(argument) for argument in arguments])
            assert explained(str(raised.value)), raised.value
