"""docs/results/: its tables, verdicts and plots are made from the runs that are kept there, byte for byte."""

import dataclasses
import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import models, reproduction
from alexnet.cifar10_pickle import read_batch
from alexnet.commands import train
from alexnet.datasets import Split
from alexnet.run import RunFolder
from alexnet.studies import ARMS, STUDIES

DOCS = Path(__file__).parents[2] / "docs"
RUNS = sorted(path.parent for place in (".", "jpeg") for path in (DOCS / "results" / place).glob("*/config.json"))
PLOTTED = [name for name in STUDIES if (DOCS / f"results/{name}.svg").exists()]


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    sys.modules.pop("results", None)
    import results

    yield results
    sys.modules.pop("results")


@pytest.mark.parametrize("page", ["README.md", "docs/results/index.md"])
def test_the_pages_are_reproduced_byte_for_byte(results, page):
    text = (DOCS.parent / page).read_text(encoding="utf-8")
    assert results.with_results(text) == text


def test_the_plots_are_reproduced_byte_for_byte(results):
    assert [name for name in STUDIES if results.runs(name)] == PLOTTED
    for name in PLOTTED:
        assert results.svg(name).encode() == (DOCS / f"results/{name}.svg").read_bytes(), name


def test_every_study_with_runs_is_on_the_page(results):
    text = (DOCS / "results/index.md").read_text(encoding="utf-8")
    shown = [mark[2] for mark in results.BLOCK.finditer(text)]
    assert "default" in shown
    for name in PLOTTED:
        assert f"({name}.svg)" in text and name in shown


def test_the_page_tells_the_networks_parameters(results):
    """In millions; the sentence begins with what the networks are."""
    text = " ".join((DOCS / "results/index.md").read_text(encoding="utf-8").split())

    def millions(name, digits):
        return f"{sum(p.data.size for p in models.create(name).parameters()) / 1e6:.{digits}f}".removeprefix("0")

    assert f"a quarter of its kernels and units ({millions('small-lrn', 1)} million parameters)" in text
    one, two = millions("small-one-tower", 2), millions("small-towers", 2)
    assert f"about as many parameters (footnote 2): here {one} against {two} million" in text
    apart, wider = millions("small-towers-apart", 2), millions("small-towers-apart-wider", 2)
    assert f"have fewer parameters, {apart} million; the wider ones have {wider}" in text


def with_other_metrics(place, run):
    """Write a copy of a kept run with slightly lower accuracies: figure 1 must still reach 25 % training error."""
    copy = place / run.relative_to(DOCS / "results")
    copy.mkdir(parents=True)
    shutil.copy(run / "config.json", copy)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{key: 0.97 * value if "accuracy" in key else value for key, value in row.items()} for row in rows]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_tables_and_plots_depend_on_the_metrics(results, monkeypatch, tmp_path):
    page, plots = (DOCS / "results/index.md").read_text(encoding="utf-8"), {name: results.svg(name) for name in PLOTTED}
    for config in (DOCS / "results").rglob("config.json"):
        with_other_metrics(tmp_path, config.parent)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    before, after = (results.BLOCK.findall(text) for text in (page, results.with_results(page)))
    blocks = [(mark[0] for mark in results.BLOCK.finditer(text)) for text in (page, results.with_results(page))]
    assert before == after and all(one != other for one, other in zip(*blocks, strict=True))
    assert all(results.svg(name) != plots[name] for name in PLOTTED)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_kept_run_is_complete_and_matches_its_study(run):
    """It does not name paths of the machine that it ran on, such as that of its data."""
    arm, _, seed = run.name.rpartition("-")
    wanted = dataclasses.replace(reproduction.run_config(train.config(Namespace()), arm, int(seed)), data_dir=None)
    assert reproduction.state(reproduction.find(run, wanted)) == "done"
    assert RunFolder.read(run).config.data_dir is None
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "metrics.jsonl"]


def test_a_network_with_several_seeds_has_a_mean(results):
    kept = sorted((DOCS / "results").glob("cifar-bn-default-*/metrics.jsonl"))
    last = [json.loads(file.read_text().splitlines()[-1]) for file in kept]
    loss, one, two = (
        f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
        for values in ([row[key] for row in last] for key in ("test_loss", "test_accuracy", "test_accuracy_views"))
    )
    assert f"loss {loss}, accuracy {one} | {two} |" in results.deck("deck") and len(kept) == 3


TWINS = sorted((DOCS / "results/twin").iterdir())


@pytest.mark.parametrize("run", TWINS, ids=lambda run: run.name)
def test_a_kept_twin_is_complete(run):
    config = json.loads((run / "config.json").read_text())
    wanted = ARMS[run.name.rpartition("-")[0]]
    assert (config["model"], config["recipe"], config["limit_train"]) == (wanted.model, wanted.recipe.name, None)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, wanted.recipe.epochs + 1))
    assert config["epochs"] == wanted.recipe.epochs and run.name.endswith(f"-{config['seed']}")
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "metrics.jsonl"]


def test_the_twin_is_compared_with_the_mean(results):
    last = {
        kind: np.mean(
            [
                [json.loads(file.read_text().splitlines()[-1])[key] for key in results.VIEWS]
                for file in (DOCS / "results").glob(f"{kind}cifar-bn-default-*/metrics.jsonl")
            ],
            axis=0,
        )
        for kind in ("", "twin/")
    }
    difference = " | ".join(f"**{value:+.4f}**" for value in last["twin/"] - last[""])
    assert results.twin("cifar-bn-default").endswith(f"| {difference} |") and np.abs(last["twin/"] - last[""]).max() < 0.005


def test_runs_on_images_compressed_twice_are_paired_by_seed(results, monkeypatch, tmp_path):
    """A run without a partner is left out."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    errors = {
        ".": {"cifar-bn-deck-0": 20.0, "cifar-bn-default-0": 10.0, "cifar-bn-default-2": 12.0},
        "jpeg": {"cifar-bn-deck-0": 21.0, "cifar-bn-default-0": 12.0, "cifar-bn-default-1": 50.0, "cifar-bn-default-2": 15.0},
    }
    for folder, of_runs in errors.items():
        for name, error in of_runs.items():
            copy = tmp_path / folder / name
            shutil.copytree(DOCS / "results" / f"{name.rpartition('-')[0]}-0", copy)
            rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
            rows[-1]["test_accuracy"] = 1 - error / 100
            (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    *arms, total = results.jpeg("deck").splitlines()[2:]
    assert [line.split(" | ")[1:] for line in arms] == [
        ["2", "11.00 ± 1.41 (10.00 to 12.00)", "13.50 ± 2.12 (12.00 to 15.00) |"],
        ["1", "20.00", "21.00 |"],
    ]
    assert total.split(" | ")[1:] == ["3", "", "**+2.00 ± 2.48** |"]  # 4.303 x 1 / sqrt(3)


@pytest.fixture
def jpeg_copy(monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    import jpeg_copy

    return jpeg_copy


def test_a_jpeg_copy_has_the_official_layout(jpeg_copy, tmp_path):
    draws = np.random.default_rng(0)
    small = draws.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((32, 32))).transpose(2, 0, 1) for image in small])
    labels = draws.integers(0, 10, 20)
    errors = []
    for quality in (95, 75):
        jpeg_copy.write(tmp_path / "data_batch_1", Split(images, labels), quality)
        copied, told = read_batch((tmp_path / "data_batch_1").read_bytes(), 20)
        np.testing.assert_array_equal(told, labels)
        errors.append(np.sqrt(np.mean((copied.astype(float) - images) ** 2)))
    assert 0.5 < errors[0] < errors[1] < 10


def test_the_blocks_of_a_second_compression_are_shifted(jpeg_copy, monkeypatch):
    """So it loses more than a second compression with the blocks in the same place would."""
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((32, 32))).transpose(2, 0, 1)

    def lost(image, frame):
        monkeypatch.setattr(jpeg_copy, "FRAME", frame)
        copy = jpeg_copy.compressed(image, 75)
        return copy, np.sqrt(np.mean((copy.astype(float) - image) ** 2))

    once, first = lost(image, 16)  # whole blocks, also of the colours
    _, again = lost(once, 16)
    monkeypatch.undo()
    _, second = lost(once, jpeg_copy.FRAME)
    assert again < 0.6 * first < 0.8 * first < second
