"""Makes the tables and plots of docs/results/index.md, and README's table of runs, from the runs kept in docs/results/."""

import io
import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet import reproduction, verdicts
from alexnet.run import RunFolder
from alexnet.studies import ARMS, STUDIES
from alexnet.verdicts import MEASURES, Rows

RESULTS = Path(__file__).parent / "results"
COLORS = ["#3366aa", "#cc6633", "#338855", "#8855aa", "#777777", "#aa3355"]
BLOCK = re.compile(r"<!-- (deck|twin|table|verdicts|jpeg|tuning|rates): ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d{3,}")
HASH = re.compile(r"\b(m|p|image)[0-9a-f]{10}\b")

VIEWS = ("test_loss", "test_accuracy", "test_accuracy_views")

Runs = dict[tuple[str, int], Rows]


def runs(study: str) -> Runs:
    """The kept runs of a study."""
    return reproduction.done(STUDIES[study], RESULTS)


# --- tables -------------------------------------------------------------------------------------------------------------------


def with_results(text: str) -> str:
    """The text of a page with an up-to-date table after each mark."""
    makers = {"deck": deck, "twin": twin, "table": table, "verdicts": told, "jpeg": jpeg, "tuning": tuning, "rates": rates}
    return BLOCK.sub(lambda mark: f"<!-- {mark[1]}: {mark[2]} -->\n\n{makers[mark[1]](mark[2])}\n\n<!-- end -->", text)


def rows_of(cells: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], re.sub(r"[^|]+", "---", lines[0]), *lines[1:]])


def deck(name: str) -> str:
    """The last line of each run, its minutes of training and its images per second; the means of an arm with several runs."""
    head = ["run", "last line", "two views", "threads", "minutes of training", "images/s"]
    found = []
    for arm in STUDIES[name].arms:
        seeds = {seed: rows for (other, seed), rows in runs(name).items() if other == arm}
        for seed, rows in seeds.items():
            last, speeds = rows[-1], [row["images_per_second"] for row in rows]
            line = f"`test loss: {last['test_loss']:.4f} - accuracy: {last['test_accuracy']:.4f}`"
            minutes = sum(row["seconds"] for row in rows) / 60
            speed = f"{statistics.median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f})"
            config = RunFolder.read(RESULTS / reproduction.run_name(arm, seed)).config
            views = f"{last['test_accuracy_views']:.4f}" if config.recipe.test_views > 1 else ""
            found.append([f"{ARMS[arm].label}, seed {seed}", line, views, str(config.threads), f"{minutes:.0f}", speed])
        if len(seeds) > 1:
            loss, one, two = (
                f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"
                for values in ([rows[-1][key] for rows in seeds.values()] for key in VIEWS)
            )
            mean = f"**{ARMS[arm].label}, mean ± standard deviation**"
            found.append([mean, f"loss {loss}, accuracy {one}", two, "", "", ""])
    return rows_of([head, *found])


def twin(arm: str) -> str:
    """The last epoch of each run of an arm and of its PyTorch twin, and the difference of their means."""
    ours = {f"minidl, seed {seed}": rows[-1] for (name, seed), rows in runs("deck").items() if name == arm}
    theirs = {}
    for path in sorted((RESULTS / "twin").glob(f"{arm}-*/config.json")):
        config = json.loads(path.read_text())
        last = json.loads((path.parent / "metrics.jsonl").read_text().splitlines()[-1])
        theirs[f"PyTorch {config['torch'].partition('+')[0]}, seed {config['seed']}"] = last
    lines = [[label, *(f"{row[key]:.4f}" for key in VIEWS)] for label, row in (ours | theirs).items()]
    less = (statistics.fmean(r[key] for r in theirs.values()) - statistics.fmean(r[key] for r in ours.values()) for key in VIEWS)
    lines.append(["**PyTorch minus the mean of minidl**", *(f"**{difference:+.4f}**" for difference in less)])
    return rows_of([["", "test loss", "accuracy", "two views"], *lines])


def table(name: str) -> str:
    """The measured mean, deviation and range of each arm."""
    study = STUDIES[name]
    values = verdicts.measured(study, runs(name))
    head = ["", "runs", f"{study.measure}, mean ± standard deviation (lowest to highest)"]
    return rows_of(
        [head, *([ARMS[arm].label, str(len(values[arm])), verdicts.spread(values[arm])] for arm in study.arms if arm in values)]
    )


def told(name: str) -> str:
    """The verdicts on a study's claims."""
    study = STUDIES[name]
    values, (_, unit) = verdicts.measured(study, runs(name)), MEASURES[study.measure]
    judged = ((claim, verdicts.judge(claim, values)) for claim in study.claims)
    return "\n".join(
        f"- {claim.text}: {verdict.told(unit).replace(verdict.word, f'**{verdict.word}**')}"
        for claim, verdict in judged
        if verdict
    )


def jpeg(name: str) -> str:
    """The study's measure on images that were compressed once and twice, and the mean difference of runs with the same seed."""
    study = STUDIES[name]
    once, twice = runs(name), reproduction.done(study, RESULTS / "jpeg")
    both = once.keys() & twice.keys()
    before, after = (verdicts.measured(study, {key: found[key] for key in both}) for found in (once, twice))
    losses = [after[arm][i] - value for arm, values in before.items() for i, value in enumerate(values)]
    margin = verdicts.T95[len(losses) - 2] * statistics.stdev(losses) / len(losses) ** 0.5
    head = ["", "runs", f"{study.measure}, compressed once", "compressed twice"]
    lines = [
        [ARMS[arm].label, str(len(values)), verdicts.spread(values), verdicts.spread(after[arm])]
        for arm, values in before.items()
    ]
    total = ["**twice minus once, 95 % interval**", str(len(losses)), "", f"**{statistics.fmean(losses):+.2f} ± {margin:.2f}**"]
    return rows_of([head, *lines, total])


# The settings that were varied for recipe default: (label, value before, value in half of the runs of tuning/).
TRIED = {
    "lr": ("highest rate", 0.05, 0.1),
    "weight_decay": ("weight decay", 5e-4, 1e-3),
    "label_smoothing": ("label smoothing", 0.0, 0.1),
    "nesterov": ("Nesterov's momentum", False, True),
    "alternating": ("reflections that alternate", False, True),
    "padding_mode": ("crops from borders that are", "constant", "reflect"),
    "crop_padding": ("pixels that crops shift by", 4, 2),
    "pct_start": ("share of the steps in which the rate rises", 0.3, 0.2),
    "cutout": ("side of a square of zeros in each image (DeVries and Taylor 2017)", 0, 8),
    "whitening": ("conv1 frozen to the principal components of patches", False, True),
    "bias_lr": ("rate of the biases, in multiples", 1.0, 8.0),
}


def tuning(_: str) -> str:
    """The main effect of each setting: the mean of the runs with it minus the mean of the runs without it.

    The bound is Lenth's margin of error (Lenth 1989), for designs without replication: a larger effect stands out from the rest.
    2.9 is Student's t, two-sided, 95 %, with 11 / 3 degrees of freedom.
    """
    found = []
    for path in sorted((RESULTS / "tuning").glob("*/config.json")):
        last = json.loads((path.parent / "metrics.jsonl").read_text().splitlines()[-1])
        found.append((json.loads(path.read_text()), last))
    lines = [["", "from", "to", "one view", "two views"]]
    effects = {}
    for key, (_, low, high) in TRIED.items():
        split = [[run for run in found if run[0][key] == value] for value in (low, high)]
        effects[key] = [
            100 * (statistics.fmean(last[what] for _, last in split[1]) - statistics.fmean(last[what] for _, last in split[0]))
            for what in ("test_accuracy", "test_accuracy_views")
        ]
    for key in sorted(effects, key=lambda key: -effects[key][0]):
        label, low, high = TRIED[key]
        lines.append([label, str(low), str(high), *(f"{effect:+.2f}" for effect in effects[key])])
    bounds = [2.9 * _pseudo_error([effect[i] for effect in effects.values()]) for i in (0, 1)]
    lines.append(["**stands out from**", "", "", *(f"**±{bound:.2f}**" for bound in bounds)])
    averaged = []
    for end in ("", "_views"):
        gains = [100 * (last[f"ema_test_accuracy{end}"] - last[f"test_accuracy{end}"]) for _, last in found]
        averaged.append(f"{statistics.fmean(gains):+.2f} ± {statistics.stdev(gains) / len(gains) ** 0.5:.2f}")
    lines.append(["moving average of the weights, of .99 a step, in each run beside the weights", "", "", *averaged])
    return rows_of(lines)


def rates(_: str) -> str:
    """The accuracy on held-out images for each network and highest rate."""
    found = []
    for path in sorted((RESULTS / "rates").glob("*/config.json")):
        config, lines = json.loads(path.read_text()), (path.parent / "metrics.jsonl").read_text().splitlines()
        found.append([config[key] for key in ("width", "limit_train", "epochs", "lr")] + [json.loads(lines[-1])["test_accuracy"]])
    head = ["width", "images", "epochs", "highest rate", "accuracy"]
    return rows_of(
        [head, *([f"{w:g}", f"{images:,}", str(epochs), f"{lr:g}", f"{right:.4f}"] for w, images, epochs, lr, right in found)]
    )


def _pseudo_error(effects: list[float]) -> float:
    """Lenth's pseudo standard error."""
    sizes = [abs(effect) for effect in effects]
    first = 1.5 * statistics.median(sizes)
    return 1.5 * statistics.median(size for size in sizes if size < 2.5 * first)


# --- plots --------------------------------------------------------------------------------------------------------------------


def svg(name: str) -> str:
    """A plot of a study as SVG."""
    with matplotlib.style.context(["default", {"svg.fonttype": "none"}]):
        return saved(PLOTS[name](name))


def saved(sheet: Figure) -> str:
    """A figure as SVG, the same on every machine: without date and version, numbers rounded to two decimals.

    Names that are hashes of all digits become numbers.
    """
    file, names = io.StringIO(), {}
    sheet.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    text = NUMBER.sub(lambda number: f"{float(number[0]):.2f}", file.getvalue())
    text = HASH.sub(lambda name: names.setdefault(name[0], f"{name[1]}{len(names)}"), text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _axes(count: int = 1, height: float = 3.8) -> tuple[Figure, list[Axes]]:
    """A figure with axes at fixed positions, two in a row. height: of a row, in inches."""
    columns = min(count, 2)
    rows = -(-count // columns)
    sheet, share = Figure(figsize=(8, height * rows)), 1 / columns
    axes = []
    for i in range(count):
        row, column = divmod(i, columns)
        left, bottom = column * share + 0.09 * share + 0.03, 1 - (row + 0.83) / rows
        axes.append(sheet.add_axes((left, bottom, 0.86 * share - 0.05, 0.72 / rows)))
        axes[-1].spines[["top", "right"]].set_visible(False)
    return sheet, axes


def dots(name: str) -> Figure:
    """Each run of each arm, and the mean of the arm."""
    study = STUDIES[name]
    values = verdicts.measured(study, runs(name))
    arms = [arm for arm in study.arms if arm in values]
    rows, height = 0.34 * len(arms), 0.6 + 0.34 * len(arms)  # inches
    sheet = Figure(figsize=(8, height))
    axes = sheet.add_axes((0.5, 0.5 / height, 0.46, rows / height))
    for y, arm in enumerate(arms):
        axes.plot(values[arm], [y] * len(values[arm]), "o", color=COLORS[0], alpha=0.5, markersize=5)
        axes.plot([statistics.fmean(values[arm])] * 2, [y - 0.3, y + 0.3], color=COLORS[1])
    axes.set(yticks=range(len(arms)), ylim=(len(arms) - 0.5, -0.5), xlabel=f"{study.measure}, %")
    axes.set_yticklabels([ARMS[arm].label for arm in arms], fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    return sheet


def _band(axes: Axes, found: list[list[float]], label: str, color: str, style: str = "-") -> None:
    """The mean of several runs by epoch, and the range between the lowest and the highest."""
    epochs = range(1, len(found[0]) + 1)
    axes.plot(epochs, [statistics.fmean(column) for column in zip(*found, strict=True)], style, color=color, label=label)
    if len(found) > 1:
        axes.fill_between(
            epochs, *[[of(column) for column in zip(*found, strict=True)] for of in (min, max)], color=color, alpha=0.2, lw=0
        )


def _by_arm(name: str) -> dict[str, list[Rows]]:
    found: dict[str, list[Rows]] = {}
    for (arm, _), rows in runs(name).items():
        found.setdefault(arm, []).append(rows)
    return found


def curves(name: str) -> Figure:
    """Test accuracy by epoch, with dotted lines for the results of the study deck."""
    sheet, (axes,) = _axes()
    for color, (arm, found) in zip(COLORS, _by_arm(name).items(), strict=False):
        _band(axes, [[row["test_accuracy"] for row in rows] for rows in found], ARMS[arm].label, color)
    axes.axhline(0.8114, color="#999999", lw=0.8, ls=":")
    axes.axhline(0.7125, color="#999999", lw=0.8, ls=":")
    axes.text(1, 0.8114, "the study deck, batch normalisation", fontsize=7, va="bottom", color="#666666")
    axes.text(1, 0.7125, "the study deck, LRN", fontsize=7, va="bottom", color="#666666")
    axes.set(xlabel="epoch", ylabel="test accuracy")
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    return sheet


def gaps(name: str) -> Figure:
    """Accuracy on training and test images by epoch, with axes for each arm."""
    found = _by_arm(name)
    sheet, axes = _axes(len(found), 3.6)
    for one, (arm, every) in zip(axes, found.items(), strict=True):
        for color, part in zip(COLORS, ("train", "test"), strict=False):
            _band(one, [[row[f"{part}_accuracy"] for row in rows] for rows in every], part, color)
        one.set(xlabel="epoch", ylim=(0.1, 1), ylabel="accuracy")
        one.set_title(ARMS[arm].label, fontsize=9)
        one.legend(fontsize=8, frameon=False)
    return sheet


def figure_1(name: str) -> Figure:
    """The training error by epoch, for each activation at the best of its learning rates."""
    values = verdicts.measured(STUDIES[name], runs(name))
    sheet, (axes,) = _axes()
    for color, claim in zip(COLORS, ("relu-*", "tanh-*"), strict=False):
        if arm := verdicts.best(claim, values):
            found = [[100 * (1 - row["train_accuracy"]) for row in rows] for rows in _by_arm(name)[arm]]
            _band(axes, found, ARMS[arm].label, color)
    axes.axhline(25, color="#999999", lw=0.8, ls=":")
    axes.set(xlabel="epoch", ylabel="training error, %")
    axes.legend(fontsize=8, frameon=False)
    return sheet


PLOTS = {
    "deck": curves,
    "relu": figure_1,
    "normalization": dots,
    "pooling": dots,
    "dropout": gaps,
    "augmentation": dots,
    "towers": dots,
    "color-noise": dots,
}
