"""Finds in the source the messages that train.py, python -m alexnet and python -m minidl.selftest can print to a user.

python docs/messages.py lists them. docs/troubleshooting.md has an entry for each; generate.py compares both.

A value in a message is shown as "…". If the source shows which texts the value can be, there is a message for each of them.
The text in parentheses in a message is a reason, which has its own entry.
"""

import ast
import builtins
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILLED = "…"

# The arguments of these errors, of the errors derived from them, and of these functions are messages.
ERRORS = {"UserError", "TrainingError", "ArgumentTypeError"}
WRITERS = {"tell", "end_with", "error"}
# The arguments of these errors are reasons.
REASONS = {"ValueError", "UnpicklingError", "ImageError"} | {
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, OSError)
}
# Except in these modules: there such an error, a wrong shape for example, is for a programmer, who reads a traceback.
LIBRARY = tuple(
    "minidl/autodiff minidl/backend minidl/data minidl/functional minidl/inspection minidl/kernels minidl/nn minidl/operators "
    "minidl/optim minidl/parallel minidl/random minidl/serialization minidl/threads alexnet/models".split()
)
# minidl/parallel/processes.py notes the end of a process as a pair that starts with one of these; the second follows "rank …".
REPORTS = {"ended", "lost"}
# The start of a printed line: the program and the kind of message.
BEGINNING = re.compile(r"((train\.py|alexnet( \w+)?|minidl\.selftest): )?(error: |training failed: )?(rank [\d…]+: )?")


class Module:
    """The syntax tree of a module, the parent of each node, and its functions by name, without methods."""

    def __init__(self, name: str, text: str):
        self.name, self.tree = name, ast.parse(text)
        self.nodes = list(ast.walk(self.tree))
        self.around = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        functions = [node for node in self.nodes if isinstance(node, ast.FunctionDef)]
        self.functions = {node.name: node for node in functions if not isinstance(self.around[node], ast.ClassDef)}
        self.imported = {alias.name for node in self.nodes if isinstance(node, ast.ImportFrom) for alias in node.names}

    def scopes(self, node: ast.AST) -> Iterator[ast.FunctionDef | ast.Module]:
        """The functions around a node, from the inside to the outside, then the module."""
        while node in self.around:
            node = self.around[node]
            if isinstance(node, ast.FunctionDef | ast.Module):
                yield node


class Collector:
    """Finds messages and reasons in sources, {module: text}. Both are {template: the module that makes it}."""

    def __init__(self, sources: dict[str, str]):
        self.modules = [Module(name, text) for name, text in sources.items()]
        self.messages: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self._at: list[ast.AST] = []  # the nodes that are being read, the outermost first
        self._errors = set(ERRORS)
        classes = [node for module in self.modules for node in module.nodes if isinstance(node, ast.ClassDef)]
        for _ in classes:
            self._errors |= {node.name for node in classes if self._errors & set(map(_name, node.bases))}
        for module in self.modules:
            for node in module.nodes:
                self._collect(module, node)
        for template in list(self.messages):  # "…: … (its traceback is in …)" is a case of "… (its traceback is in …)"
            others = [other for other in self.messages if other != template and words(other) == words(template)]
            if any(matches(other, template) for other in others):
                del self.messages[template]

    def _collect(self, module: Module, node: ast.AST) -> None:
        """Add the messages and reasons that a node makes."""
        if isinstance(node, ast.Call):
            name = _name(node.func)
            to_standard_error = any(keyword.arg == "file" and _name(keyword.value) == "stderr" for keyword in node.keywords)
            if name in self._errors | WRITERS or to_standard_error:
                self._add(self.messages, module, node.args)
            elif name in REASONS and not module.name.startswith(LIBRARY):
                self._add(self.reasons, module, node.args)
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and getattr(node.elts[0], "value", "") in REPORTS:
            self._add(self.messages, module, node.elts[1:], "rank … ")

    def _add(self, found: dict[str, str], module: Module, made: Iterable[ast.expr], before: str = "") -> None:
        for text in (text for node in made for text in self._texts(module, node)):
            template = bare(before + text)
            if len(words(template)) > 1:
                found.setdefault(template, module.name)

    # --- the texts that an expression can have ------------------------------------------------------------------------

    def _texts(self, module: Module, node: ast.expr) -> list[str]:
        """All texts that an expression can have, with FILLED for parts that are not known from the source."""
        if node in self._at:
            return [FILLED]
        self._at.append(node)
        try:
            return list(dict.fromkeys(self._read(module, node)))
        finally:
            self._at.pop()

    def _read(self, module: Module, node: ast.expr) -> Iterable[str]:
        match node:
            case ast.Constant(value=None):
                return []
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return map("".join, itertools.product(*self._parts(module, parts)))
            case ast.IfExp(body=first, orelse=second):
                return self._any(module, [first, second])
            case ast.BoolOp(values=values):
                return self._any(module, values)
            case ast.Name():
                return self._of_name(module, node)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="get"), args=[_, default]):
                return [*self._of_table(module, table), *self._texts(module, default)]
            case ast.Call():
                returned = [text for home, value in self._returned(module, node) for text in self._texts(home, value)]
                return returned or [FILLED]
        return [FILLED]

    def _any(self, module: Module, nodes: Iterable[ast.expr]) -> list[str]:
        return [text for node in nodes for text in self._texts(module, node)]

    def _parts(self, module: Module, parts: list[ast.expr]) -> Iterator[list[str]]:
        """The texts of each part of an f-string. A value in parentheses is a reason."""
        around = ["", *(str(getattr(part, "value", "")) for part in parts), ""]
        for before, part, after in zip(around, parts, around[2:], strict=False):
            if not isinstance(part, ast.FormattedValue):
                yield self._texts(module, part)
            elif before.endswith("(") and after.startswith(")"):
                self._add(self.reasons, module, [part.value])
                yield [FILLED]
            elif part.conversion != -1:  # !r adds quotes
                yield [FILLED]
            else:
                texts = [text if len(words(text)) != 1 else FILLED for text in self._texts(module, part.value)]
                yield list(dict.fromkeys(texts)) or [FILLED]

    def _of_name(self, module: Module, node: ast.Name) -> list[str]:
        """The texts assigned to a variable or passed as a parameter."""
        for scope in module.scopes(node):
            if isinstance(scope, ast.FunctionDef) and node.id in [arg.arg for arg in scope.args.args]:
                return self._of_parameter(module, scope, node.id)
            statements = ast.walk(scope) if isinstance(scope, ast.FunctionDef) else scope.body
            assigned = [text for statement in statements for text in self._assigned(module, statement, node.id)]
            if assigned:
                return assigned
        return [FILLED]

    def _assigned(self, module: Module, node: ast.AST, name: str) -> list[str]:
        """The texts that a statement or := assigns to a variable."""
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.expr() as value) if target == name:
                return self._texts(module, value)
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                return self._texts(module, value)
            case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                return self._texts(module, value)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                places = [i for i, target in enumerate(targets) if isinstance(target, ast.Name) and target.id == name]
                tuples = [(module, value)] if isinstance(value, ast.Tuple) else self._returned(module, value)
                return [text for place in places for where, given in tuples for text in self._element(where, given, place)]
        return []

    def _element(self, module: Module, node: ast.expr, place: int) -> list[str]:
        return self._texts(module, node.elts[place]) if isinstance(node, ast.Tuple) else [FILLED]

    def _of_parameter(self, module: Module, function: ast.FunctionDef, name: str) -> list[str]:
        """The texts that calls pass as a parameter; FILLED for methods and for functions without calls."""
        place = [arg.arg for arg in function.args.args].index(name)
        texts: list[str] = []
        for other in self.modules if module.functions.get(function.name) is function else ():
            if other is module or function.name in other.imported:
                for node in other.nodes:
                    if isinstance(node, ast.Call) and _name(node.func) == function.name:
                        named = [keyword.value for keyword in node.keywords if keyword.arg == name]
                        texts += self._any(other, node.args[place : place + 1] or named)
        return texts or [FILLED]

    def _returned(self, module: Module, node: ast.expr) -> list[tuple[Module, ast.expr]]:
        """[(module, expression)] that a call can return; empty if the function is not in the modules."""
        match node:
            case ast.Call(func=ast.Name(id=name)):
                others = self.modules if name in module.imported else []
                homes = [module] if name in module.functions else [other for other in others if name in other.functions]
            case ast.Call(func=ast.Attribute(value=ast.Name(id=place), attr=name)) if place in module.imported:
                homes = [other for other in self.modules if Path(other.name).stem == place and name in other.functions]
            case _:
                homes = []
        return [
            (home, inner.value)
            for home in homes
            for inner in ast.walk(home.functions[name])
            if isinstance(inner, ast.Return) and inner.value and next(home.scopes(inner)) is home.functions[name]
        ]

    def _of_table(self, module: Module, name: str) -> list[str]:
        """The texts of the values of a dict of the module."""
        for node in module.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=ast.Dict(values=values)) if target == name:
                    return self._any(module, values)
        return [FILLED]


def bare(line: str) -> str:
    """A message without the start that is added when it is printed."""
    return line[BEGINNING.match(line).end() :]


def words(text: str) -> list[str]:
    """The words of a text. A single word is the name of a program, device or file."""
    return re.findall("[A-Za-z]{2,}", text)


def matches(template: str, line: str) -> bool:
    """Whether a line is a template with values filled in."""
    return re.fullmatch(".+".join(map(re.escape, template.split(FILLED))), line, re.DOTALL) is not None


def _name(node: ast.expr) -> str:
    """The last part of a name such as argparse.ArgumentTypeError."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def source() -> dict[str, str]:
    """The text of the modules of minidl and alexnet, by name."""
    files = sorted(file for package in ("minidl", "alexnet") for file in (ROOT / package).rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


@functools.cache
def made() -> dict[str, str]:
    """All messages and reasons, with the module that makes each."""
    collector = Collector(source())
    return collector.messages | collector.reasons


# --- the page that explains them --------------------------------------------------------------------------------------

PAGE = Path(__file__).parent / "troubleshooting.md"
# One or more messages, each a line of code, then their cause and cure.
ENTRY = re.compile(r"((?:^`[^`\n]+`\\\n)+)Cause: \S[^\\]*\\\nCure: \S", re.MULTILINE)
REASONS_TABLE = re.compile(r"^## Reasons\n(.*?)^## ", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (`.*`) \| \S.* \|$", re.MULTILINE)
STUBS = re.compile(r"\n## Not explained yet\n.*?(?=\n## |\Z)", re.DOTALL)


def entries(page: str) -> list[str]:
    """The messages that have a complete entry in the page."""
    return _code(ENTRY.findall(page))


def reasons(page: str) -> list[str]:
    """The reasons that have a complete row in the page."""
    table = REASONS_TABLE.search(page)
    return _code(ROW.findall(table[1])) if table else []


def _code(cells: Iterable[str]) -> list[str]:
    return [code for cell in cells for code in re.findall("`(.+?)`", cell)]


def differences(page: str) -> tuple[dict[str, str], list[str]]:
    """(the messages and reasons without an entry, with their modules; the entries without a message or reason)."""
    there, needed = [*entries(page), *reasons(page)], made()
    missing = {template: name for template, name in needed.items() if template not in there}
    return missing, [template for template in there if template not in needed]


def with_stubs(page: str) -> str:
    """The page with a section at its end that lists the messages and reasons without an entry."""
    missing, _ = differences(page)
    page = STUBS.sub("", page)
    stubs = "".join(f"- `{template}` ({name})\n" for template, name in missing.items())
    return f"{page}\n## Not explained yet\n\n{stubs}" if stubs else page


if __name__ == "__main__":
    for template, name in made().items():
        print(f"{name}: {template}")
