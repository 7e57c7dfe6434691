"""The exercises are wrong as shipped, the solutions are right, and the check recognises each mistake."""

import ast
import errno
import importlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
HERE = ROOT / "exercises"
PAGES = [ROOT / "docs/exercises.md", ROOT / "docs/ko/exercises.md"]
sys.path.insert(0, str(HERE))
check, checks, diagnosis = map(importlib.import_module, ["check", "checks", "diagnosis"])

NUMBERS = range(1, 13)
ORDER = "dx, dgamma, dbeta"


def exercise_path(number: int) -> Path:
    return HERE / f"exercise_{number:02}.py"


def solution_path(number: int) -> Path:
    return HERE / "solutions" / f"solution_{number:02}.py"


def spoiled(number: int, spoil):
    """A subclass of a solution whose backward returns spoil(gradients)."""
    solution = check.load(solution_path(number), checks.EXERCISES[number - 1].function)
    return type(solution.__name__, (solution,), {"backward": lambda self, grad: spoil(solution.backward(self, grad))})


def trouble(number: int, function):
    with pytest.raises(diagnosis.NotYet) as raised:
        diagnosis.examine(checks.EXERCISES[number - 1], function)
    return raised.value


def verdict(folder: Path, source: str, number: int) -> str:
    """The verdict on the file of a student; it must be "not right"."""
    (folder / "mine.py").write_text(source, encoding="utf-8")
    right, text = check.verdict(number, folder / "mine.py")
    assert not right
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("File: "))
    return text.replace("\n", " ")


# --- the shipped files ---------------------------------------------------------------------------------------------

SHIPPED = {
    1: ["constant factor", "times n = 12"],
    2: ["gradient of b has the wrong shape", "(4, 3, 5, 2), the true one (3,)", "shape of the output", "sum over the axes"],
    3: ["used twice, and one of its two gradients is missing", "with s as a constant"],
    4: ["backward is blank", "dx (4, 3), dweight (2, 3), dbias (2,)"],
    5: ["mask is that of another dropout layer, and a factor", "times 1 - p = 0.6"],
    6: ["subtracted in whole columns, and a factor", "times N = 5"],
    7: ["mean and var are treated as constants", "gamma        all right", "beta         all right"],
    8: ["the gradients of overlapping windows are not added up", "if the same place comes twice?  File:"],
    9: ["backward is blank", "dx (2, 3, 5, 4), dweight (4, 3, 3, 2), dbias (4,)"],
    10: ["denominators of the neighbours are missing"],
    11: ["divides by the size of its own shard, and a factor", "will still be the true one divided by ranks = 3"],
    12: ["gradient of x0 is that of one copy only", "Each copy gives a gradient"],
}


@pytest.mark.parametrize("number", NUMBERS)
def test_an_exercise_is_not_right_and_the_verdict_says_why(number):
    right, text = check.verdict(number, exercise_path(number))
    text = text.replace("\n", " ")
    assert not right and text.startswith(f"Exercise {number}, ") and "is not right yet: " in text
    assert text.endswith(f"File: exercises/exercise_{number:02}.py")
    for phrase in SHIPPED[number]:
        assert phrase in text


@pytest.mark.parametrize("number", NUMBERS)
def test_a_solution_is_right(number, capsys):
    assert check.main([str(number), "--solution"]) == 0
    assert ", is right: " in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=["English", "Korean"])
def test_the_page_shows_the_printed_verdicts(page):
    shown = page.read_text(encoding="utf-8").replace("exercises/mine/", "exercises/")
    for path in (exercise_path(7), solution_path(7)):
        assert textwrap.indent(check.verdict(7, path)[1], "    ") in shown


def test_the_pages_list_every_exercise():
    """With its number, blank or wrong, and the file in the library; the English page also has the titles."""
    english, korean = (
        re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+) \|$", page.read_text("utf-8"), re.MULTILINE) for page in PAGES
    )
    blank = [str(number) for number in NUMBERS if "NotImplementedError" in exercise_path(number).read_text("utf-8")]
    assert [row[0] for row in english] == [row[0] for row in korean] == list(map(str, NUMBERS))
    assert [row[1].partition(",")[0] for row in english] == [exercise.title for exercise in checks.EXERCISES]
    assert [row[0] for row in english if row[2] == "blank"] == blank == [row[0] for row in korean if row[2] == "빈칸"]
    for (*_, file), (*_, same_file) in zip(english, korean, strict=True):
        assert re.findall("`.+?`", file) == re.findall("`.+?`", same_file)
        for path in re.findall(r"`(\S+\.py)`", file):
            assert (ROOT / "minidl" / path).exists()


def test_no_file_is_missing_or_too_many():
    assert len(checks.EXERCISES) == len(NUMBERS)
    assert sorted(HERE.glob("exercise_*")) == [exercise_path(number) for number in NUMBERS]
    assert sorted((HERE / "solutions").glob("solution_*")) == [solution_path(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_exercise_and_solution_differ_only_in_backward(number):
    changed = {"backward"} | ({"__init__", "kept"} if number == 5 else set())

    def rest(path):
        tree = ast.parse(path.read_text())
        formulas = [line for line in ast.get_docstring(tree).splitlines() if line.startswith("    ")]
        tree.body[-1].body = [node for node in tree.body[-1].body if getattr(node, "name", "kept") not in changed]
        return formulas, [ast.dump(node) for node in tree.body[1:]]

    (formulas, code), (more_formulas, same_code) = rest(exercise_path(number)), rest(solution_path(number))
    assert formulas == more_formulas[: len(formulas)] and code == same_code


@pytest.mark.parametrize("number", NUMBERS)
def test_the_cases_have_axes_of_different_lengths(number):
    cases = checks.EXERCISES[number - 1].cases
    shapes = [next(iter(case.inputs.values())).shape for case in cases]
    assert len(set(shapes)) == 3 and len(set(shapes[0])) == len(shapes[0])


# --- mistakes that any exercise may have ---------------------------------------------------------------------------

GENERAL = {
    "twice": (7, lambda p: (2 * p[0], *p[1:]), "gradient of x is off by a constant factor", "the true one times 2 at"),
    "named factor": (7, lambda p: (p[0], p[1], p[2] / 40), "gradient of beta is off by a constant", "divided by N H W = 40"),
    "sign": (7, lambda p: (p[0], -p[1], p[2]), "gradient of gamma has the wrong sign", "times -1"),
    "zero": (7, lambda p: (0 * p[0], *p[1:]), "gradient of x is zero everywhere", "does depend on x"),
    "one element": (7, lambda p: (p[0], p[1], p[2] + [0, 0, 1]), "1 of the 3 elements of the gradient of beta", "adds a term"),
    "nan": (7, lambda p: (p[0] * np.nan, *p[1:]), "gradient of x has nan or inf", "division by 0"),
    "nothing": (7, lambda p: None, "backward returns None", ORDER),
    "one None": (7, lambda p: (p[0], None, p[2]), "gradient of gamma is None", ORDER),
    "too few": (7, lambda p: p[:2], "takes 3 inputs, and backward returns 2 gradients", ORDER),
    "a list": (7, lambda p: (p[0], list(p[1]), p[2]), "gradient of gamma is a list, not an array", ORDER),
    "transposed shape": (4, lambda p: (p[0], p[1].T, p[2]), "gradient of weight has the wrong shape", "It is transposed"),
    "transposed square": (4, lambda p: (p[0], p[1].T if len(p[0]) == 3 else p[1], p[2]), "of weight is transposed", "order"),
    "wrong order": (4, lambda p: (p[1], p[0], p[2]), "gradient of x has the wrong shape", "shape of weight"),
    "keepdims": (2, lambda p: (p[0], p[1][:, None]), "gradient of b has the wrong shape", "keepdims"),
    "an axis too many": (2, lambda p: (p[0], p[0].sum(axis=0)), "gradient of b has the wrong shape", "more to sum over"),
    "summed too much": (2, lambda p: (p[0], p[1].sum()), "gradient of b has the wrong shape", "too much is summed"),
    "padding left": (9, lambda p: (np.pad(p[0], 1), *p[1:]), "gradient of x has the wrong shape", "larger than x"),
    "a list of all": (7, lambda p: [2 * p[0], *p[1:]], "gradient of x is off by a constant factor", "the true one times 2 at"),
    "another length": (2, lambda p: (p[0], p[1][:2]), "gradient of b has the wrong shape", "axis by axis"),
}


@pytest.mark.parametrize("number, spoil, what, hint", GENERAL.values(), ids=GENERAL)
def test_a_general_mistake_is_recognised(number, spoil, what, hint):
    found = trouble(number, spoiled(number, spoil))
    assert what in found.what and hint in found.hint


def test_a_gradient_without_grad_is_recognised():
    solution = spoiled(3, lambda p: p)
    solution.backward = lambda self, grad: self.s + self.x * self.s * (1 - self.s)
    assert "does not depend on grad" in trouble(3, solution).what


def test_a_backward_that_changes_at_each_call_is_recognised():
    draws = iter(range(100))
    assert "something else each time" in trouble(3, spoiled(3, lambda p: p + next(draws))).what


def test_a_backward_that_changes_grad_is_recognised():
    def backward(self, grad):
        grad *= self.s + self.x * self.s * (1 - self.s)
        return grad

    solution = spoiled(3, lambda p: p)
    solution.backward = backward
    assert "changes in place" in trouble(3, solution).what


def test_the_table_shows_wrong_elements_and_which_gradients_are_right():
    table = trouble(7, spoiled(7, lambda p: (p[0], *p[1:-1], p[2] * [1, 2, 1]))).table
    assert table[0] == "With BatchNorm(0.01) and x (4, 3, 5, 2), gamma (3,), beta (3,):"
    assert table[2:4] == ("x            all right", "gamma        all right")
    assert len(table) == 5 and table[4].split()[:2] == ["beta", "[1]"]
    yours, true = map(float, table[4].split()[2:])
    assert yours == pytest.approx(2 * true, rel=1e-4)


def test_a_mistake_in_a_later_case_is_found():
    found = trouble(4, spoiled(4, lambda p: (p[0], p[1].T if len(p[0]) == 3 else p[1], p[2])))
    assert found.table[0] == (
        "Right with Linear() and x (2, 5), weight (3, 5), bias (3,), "
        "but not with Linear() and x (3, 3), weight (3, 3), bias (3,):"
    )


# --- the mistakes of each exercise ---------------------------------------------------------------------------------

MISTAKES = [(number, m) for number in NUMBERS for m in checks.EXERCISES[number - 1].mistakes if isinstance(m, diagnosis.Mistake)]


@pytest.mark.parametrize("scale", [1, 1.5])
@pytest.mark.parametrize("number, mistake", MISTAKES, ids=[f"{number} {mistake.what}" for number, mistake in MISTAKES])
def test_each_mistake_is_recognised(number, mistake, scale):
    exercise = checks.EXERCISES[number - 1]
    position = list(exercise.cases[0].inputs).index(mistake.of)
    solution = check.load(solution_path(number), exercise.function)

    class Mistaken(solution):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.arguments = arguments

        def backward(self, grad):
            parts = super().backward(grad)
            parts = list(parts) if isinstance(parts, tuple | list) else [parts]
            parts[position] = scale * mistake.gradient(grad, *(x.data for x in self.inputs), *self.arguments)
            return tuple(parts)

    found = trouble(number, Mistaken)
    if scale != 1 and mistake.what == "the window is taken from the wrong side":  # in the first case, of odd size, it is right
        assert "constant factor" in found.what
    else:
        assert found.what == mistake.what + (", and a factor is wrong too" if scale != 1 else "")
        assert found.hint.startswith(mistake.hint)


# (exercise, a part of the solution, its replacement, a part of the verdict)
HALF_REPAIRED = [
    (1, "self.x / self.x.size", "self.x / len(self.x)", "times n / len(x) = 3"),
    (1, "grad * 2 * self.x", "grad * self.x", "times 0.5"),
    (1, "grad * 2 * self.x", "2 * self.x", "does not depend on grad"),
    (1, "grad * 2 * self.x", "grad**2 * 2 * self.x / self.x.size", "not proportional to grad"),
    (2, "grad.sum(axis=(0, 2, 3))", "grad.mean(axis=(0, 2, 3))", "divided by N H W = 40"),
    (2, "grad.sum(axis=(0, 2, 3))", "grad.sum(axis=0)", "there is more to sum over"),
    (2, "grad.sum(axis=(0, 2, 3))", "grad[0, :, 0, 0]", "of one place only"),
    (2, "grad.sum(axis=(0, 2, 3))", "grad[0].sum(axis=(1, 2))", "3 of the 3 elements of the gradient of b are wrong"),
    (3, "self.x * self.s * (1 - self.s)", "self.s * (1 - self.s)", "through s lacks the factor x"),
    (3, "self.s + self.x * self.s", "self.x * self.s", "Add the gradient through that factor"),
    (4, "grad.T @ self.x", "self.x.T @ grad", "the gradient of weight has the wrong shape"),
    (4, "grad.sum(axis=0)", "grad", "the gradient of bias has the wrong shape"),
    (4, "grad.sum(axis=0)", "grad.mean(axis=0)", "divided by N = 4"),
    (5, "self.kept = {}", "self.kept = globals().setdefault('kept', {})", "that of another dropout layer"),
    (5, "return grad * self.kept['mask'] / (1 - self.p)", "return grad * self.kept['mask']", "times 1 - p = 0.6"),
    (5, "return grad * self.kept['mask']", "return grad", "right where x was kept, and wrong where x was dropped"),
    (5, "return grad * self.kept['mask']", "return grad * (self.rng.random(grad.shape) >= self.p)", "the mask is a new one"),
    (6, "grad * dx / len(dx)", "grad * dx", "times N = 5"),
    (6, "grad * dx / len(dx)", "grad * dx / dx.size", "divided by C = 4"),
    (6, "grad * dx / len(dx)", "-grad * dx / len(dx)", "wrong sign"),
    (6, "dx[self.rows, self.labels] -= 1", "dx[:, self.labels] -= 1", "1 is subtracted in whole columns"),
    (6, "dx[self.rows, self.labels] -= 1", "dx[self.rows, self.labels] += 1", "wrong at the labels, and right elsewhere"),
    (7, "(g - through_mean - through_var)", "(g - through_mean)", "var is treated as a constant"),
    (7, "(g - through_mean - through_var)", "(g - through_var)", "mean is treated as a constant"),
    (7, "g - through_mean - through_var) * self.inverse_std", "g - through_mean - through_var)", "120 of the 120 elements"),
    (
        8,
        "np.add.at(dx, (self.n, self.c, self.rows, self.columns), grad)",
        "dx[self.n, self.c, self.rows, self.columns] += grad",
        "if the same place comes twice? It keeps one of the values. In NumPy dx[places] += grad does so, too; np.add.at",
    ),
    (8, "(self.n, self.c, self.rows, self.columns)", "(..., self.rows, self.columns)", "all images and channels get the same"),
    (9, "dxpad[self.seen_by(i, j)] +=", "dxpad[self.seen_by(i, j)] =", "patches are overwritten"),
    (9, "dxpad[:, :, p : H - p, p : W - p]", "dxpad", "larger than x"),
    (9, "dxpad[:, :, p : H - p, p : W - p]", "dxpad[:, :, p:-p, p:-p]", "It is empty. A slice p:-p is empty if p is 0"),
    (9, "grad, self.weight[:, :, i, j]", "grad, self.weight[:, :, -1 - i, -1 - j]", "the kernel is flipped"),
    (10, "total[:, self.around(j)] += t[:, j : j + 1]", "total[:, j] += t[:, j]", "denominators of the neighbours are missing"),
    (10, "total[:, self.around(j)] += t[:, j : j + 1]", "total[:, j] = t[:, self.around(j)].sum(axis=1)", "from the wrong side"),
    (10, "direct - 2 *", "direct -", "lacks the 2 of the square"),
    (10, "self.x * total", "total", "144 of the 144 elements"),
    (11, "x / N", "x / len(error)", "divides by the size of its own shard. "),
    (11, "x / N", "x", "times N = 7"),
    (11, "x / N", "x * len(error) / N", "the size of a shard counts twice. "),
    (11, "grad * sum(gradients)", "grad * sum(gradients) / len(gradients)", "divided by ranks = 3"),
    (11, "grad * sum(gradients)", "grad * sum(gradients) / N", "divided by N = 7"),
    (11, "x / N", "x / len(gradients or [1])", "3 of the 3 elements"),
    (11, "grad * sum(gradients)", "grad * gradients[-1]", "from the shard of the last rank only"),
    (12, "total[rows] for", "total for", "larger than x0"),
    (12, "grad.sum(axis=0)", "grad.mean(axis=0)", "divided by ranks = 3"),
    (12, "grad.sum(axis=0)", "grad[0]", "that of one copy only"),
    (12, "grad.sum(axis=0)", "grad[1:].sum(axis=0)", "lacks that of the own copy"),
    (
        12,
        "rows] for rows in self.rows]",
        "2 * r : 2 * r + 2] for r in range(len(self.rows))]",
        "Right with Gather() and x0 (2, 4), x1 (2, 4), x2 (2, 4), but not with",
    ),
    (12, "self.rows]", "self.rows[1:] + self.rows[:1]]", "that of another part"),
    (12, "self.rows]", "self.rows[-1:] + self.rows[:-1]]", "that of another part"),
]


@pytest.mark.parametrize("number, old, new, what", HALF_REPAIRED, ids=[f"{number} {new}" for number, _, new, _ in HALF_REPAIRED])
def test_a_half_repaired_exercise_gets_the_verdict_on_the_remaining_mistake(number, old, new, what, tmp_path):
    source = solution_path(number).read_text(encoding="utf-8").replace('"mask"', "'mask'")
    assert source.count(old) == 1
    assert what in verdict(tmp_path, source.replace(old, new), number)


@pytest.mark.parametrize(
    "number, old, new",
    [
        (5, 'self.kept["mask"]', "self.mask"),
        (11, "x / N", "x / len(error) * (len(error) / N)"),
        (12, "[total[rows] for rows in self.rows]", "tuple(grad[:, rows].sum(axis=0) for rows in self.rows)"),
    ],
)
def test_a_repair_that_differs_from_the_solution_may_be_right(number, old, new, tmp_path):
    source = solution_path(number).read_text(encoding="utf-8")
    assert old in source
    (tmp_path / "mine.py").write_text(source.replace(old, new), encoding="utf-8")
    assert check.verdict(number, tmp_path / "mine.py")[0]


# --- files that do not run -----------------------------------------------------------------------------------------


def test_an_exception_in_backward_is_reported_with_its_line(tmp_path):
    source = solution_path(4).read_text(encoding="utf-8").replace("return grad @ self.weight,", "return self.weight @ grad,")
    text = verdict(tmp_path, source, 4)
    assert "is not right yet: it failed with ValueError: matmul" in text
    assert "given grad (4, 2), and is to return dx (4, 3), dweight (2, 3), dbias (2,)" in text
    line = source.splitlines().index("        return self.weight @ grad, grad.T @ self.x, grad.sum(axis=0)") + 1
    assert f"mine.py, line {line}: return self.weight @ grad" in text


@pytest.mark.parametrize(
    "statement, axes",
    [
        ("np.add.at(dx, (self.rows, self.columns), grad)", True),  # IndexError
        ("np.add.at(dx, (self.n, self.c, self.rows), grad)", True),  # ValueError
        ("dx[places] = grad", False),  # NameError
    ],
)
def test_an_index_that_does_not_fit_gets_a_hint_on_the_axes(statement, axes, tmp_path):
    repair = "np.add.at(dx, (self.n, self.c, self.rows, self.columns), grad)"
    text = verdict(tmp_path, solution_path(8).read_text(encoding="utf-8").replace(repair, statement), 8)
    assert "is not right yet: it failed with" in text and f": {statement}" in text
    assert ("dx has four axes: image, channel, row, column. An element is dx[n, c, h, w]." in text) == axes


@pytest.mark.parametrize(
    "source, phrases",
    [
        ("x = 1\ndef f(:\n", ["not Python that runs, SyntaxError: ", "mine.py, line 2"]),
        ("x = 1\n\nx = unknown\n", ["NameError: name 'unknown' is not defined", "mine.py, line 3: x = unknown"]),
        ("raise ValueError('Stop.')\n", ["it is not Python that runs, ValueError: Stop.  Hint: "]),
        ("class Swosh: pass\n", ["no class Swish in it", "Keep the name"]),
        ("class Swish: pass\n", ["failed with TypeError"]),
        (
            "from minidl import Function\nclass Swish(Function):\n    def forward(self, x): return x\n",
            ["forward gives other values"],
        ),
    ],
)
def test_a_file_that_does_not_fit_gets_a_helpful_verdict(source, phrases, tmp_path):
    text = verdict(tmp_path, source, 3)
    assert "Traceback" not in text
    for phrase in phrases:
        assert phrase in text


# --- the command line ----------------------------------------------------------------------------------------------


def test_check_makes_a_copy_to_repair(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "MINE", tmp_path / "mine")
    mine, given = tmp_path / "mine/exercise_03.py", exercise_path(3).read_bytes()
    made = f"Made {mine} for you. Change this file; delete it to start again.\n\n"

    assert check.main(["3"]) == 1 and mine.read_bytes() == given
    first = capsys.readouterr().out
    assert first.startswith(f"{made}Exercise 3, swish, is not right yet") and first.endswith(f"File: {mine}\n")
    assert check.main(["3"]) == 1 and capsys.readouterr().out == first.removeprefix(made)

    shutil.copyfile(solution_path(3), mine)
    assert check.main(["3"]) == 0 and capsys.readouterr().out.startswith("Exercise 3, swish, is right")
    assert mine.read_bytes() == solution_path(3).read_bytes() and exercise_path(3).read_bytes() == given

    mine.unlink()
    assert check.main(["3"]) == 1 and capsys.readouterr().out == first and mine.read_bytes() == given


def test_git_ignores_the_copies():
    git = shutil.which("git")
    if not git or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    check_ignore = [git, "-C", str(ROOT), "check-ignore", "-q"]
    assert subprocess.run([*check_ignore, check.MINE / "exercise_01.py"]).returncode == 0
    assert subprocess.run([*check_ignore, exercise_path(1)]).returncode == 1


def test_a_copy_is_complete_or_not_there(tmp_path, monkeypatch, capsys):
    def disk_is_full(source, target):
        Path(target).touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(check, "MINE", tmp_path / "mine")
    monkeypatch.setattr(shutil, "copyfile", disk_is_full)
    assert check.main(["3"]) == 2 and "No space left on device" in capsys.readouterr().err
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.fixture
def command(tmp_path):
    """The command that checks exercise 3 in a copy of the folder exercises."""
    shutil.copytree(HERE, tmp_path / "exercises", ignore=shutil.ignore_patterns("mine"))
    return {
        "args": [sys.executable, "-B", str(tmp_path / "exercises/check.py"), "3"],
        "env": os.environ | {"PYTHONPATH": str(ROOT)},
        "stderr": subprocess.PIPE,
        "timeout": 60,
    }


def test_ctrl_c_ends_without_a_traceback(command, tmp_path):
    (tmp_path / "exercises/mine").mkdir()
    (tmp_path / "exercises/mine/exercise_03.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(**command, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_error(command, unbuffered):
    command["env"]["PYTHONUNBUFFERED"] = unbuffered
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as pipe:
        done = subprocess.run(**command, stdout=pipe)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("folder", ["mine", "mine/exercise_03.py/"])
def test_a_file_that_cannot_be_made_or_read_is_one_line_and_status_2(folder, tmp_path, monkeypatch, capsys):
    """There is a file in the place of the folder, or a folder in the place of the file."""
    monkeypatch.setattr(check, "MINE", tmp_path / "mine")
    (tmp_path / folder).mkdir(parents=True) if folder.endswith("/") else (tmp_path / folder).touch()
    assert check.main(["3"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "cannot be made or read" in err and str(tmp_path / "mine") in err


@pytest.mark.parametrize(
    "arguments", [[], ["0"], ["13"], ["three"], ["-1"], ["3.0"], ["3", "4"], ["3", "--answer"], ["--solution"], ["9" * 5000]]
)
def test_wrong_usage_is_one_line_and_status_2(arguments, capsys):
    assert check.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "the number of an exercise, 1 to 12" in err and (" ".join(arguments)[:50] or "nothing") in err and len(err) < 200


@pytest.mark.parametrize("arguments, status, out", [(["3", "--solution"], 0, "Exercise 3, swish, is right"), (["13"], 2, "")])
def test_check_runs_from_any_folder(arguments, status, out, tmp_path):
    command = [sys.executable, "-B", str(HERE / "check.py"), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == status and result.stdout.startswith(out)
    assert "Traceback" not in result.stderr and result.stderr.count("\n") == (status == 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_verdict_that_cannot_be_written_is_one_line_and_status_2():
    command = [sys.executable, "-B", str(HERE / "check.py"), "3", "--solution"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (2, "cannot write to standard output: No space left on device\n")
