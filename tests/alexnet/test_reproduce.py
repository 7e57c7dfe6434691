"""The studies of `reproduce`: their networks, runs and verdicts."""

import dataclasses
import errno
import json
import math
import os
import re
import signal
from argparse import Namespace

import numpy as np
import pytest

from alexnet import entry, launch, models, reporter, reproduction, studies, verdicts
from alexnet.commands import reproduce, train
from alexnet.lock import FolderLock
from alexnet.recipes import RECIPES
from alexnet.run import RunFolder
from alexnet.studies import ARMS, STUDIES, Arm, Claim, Study
from alexnet.variants import VARIANTS, cifar_variant, four_layers
from minidl import Tensor, nn
from minidl.errors import TrainingError, UserError
from minidl.nn import init, summary
from minidl.parallel import mpi

from ..helpers.experiments import metrics, tiny_network

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)


# --- networks -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization, model", [("lrn", "cifar-lrn"), ("bn", "cifar-bn")])
def test_the_unchanged_variant_equals_the_network(normalization, model):
    variant, network = cifar_variant(width=1.0, normalization=normalization).eval(), models.create(model).eval()
    state = {name: array.reshape(variant.state_dict()[name].shape) for name, array in network.state_dict().items()}
    variant.load_state_dict(state)
    np.testing.assert_allclose(variant(Tensor(IMAGES)).data, network(Tensor(IMAGES)).data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, layers",
    [
        ("small-lrn-paper", "lrn1 lrn2"),
        ("small-lrn-tensorflow", "lrn1 lrn2"),
        ("small-none", "lrn1 lrn2"),
        ("small-pool-3-2", "pool1 pool2 pool5 fc6"),
        ("small-pool-2-2", "pool1 pool2 pool5 fc6"),
        ("small-no-dropout", "drop6 drop7"),
        ("small-towers", "lrn1 conv2 lrn2 conv4 conv5"),
    ],
)
def test_each_variant_differs_in_one_thing(name, layers):
    """The kernels of fc6 are as large as the maps that the pooling gives."""
    base, variant = (
        {layer: repr(module) for layer, module in models.layers(network)} for network in (cifar_variant(), VARIANTS[name]())
    )
    assert [layer for layer in base if variant.get(layer) != base[layer]] == layers.split() and variant.keys() <= base.keys()


def test_the_normalisation_and_dropout_of_the_variants():
    norms = {name: repr(VARIANTS[name]().lrn1) for name in ("small-lrn", "small-lrn-paper", "small-lrn-tensorflow")}
    assert "convention=paper" in norms["small-lrn-paper"] and "beta=0.5" in norms["small-lrn-tensorflow"]
    assert "convention" not in norms["small-lrn"] and "k=2.0" in norms["small-lrn"]
    assert not any(name.startswith("lrn") for name, _ in models.layers(VARIANTS["small-none"]()))
    for name, p in (("small-lrn", 0.5), ("small-no-dropout", 0.0)):
        assert [layer.p for layer in VARIANTS[name]() if isinstance(layer, nn.Dropout)] == [p, p]


def test_both_poolings_give_maps_of_the_same_size():
    overlapping, apart = (summary(VARIANTS[name](), (3, 32, 32)) for name in ("small-pool-3-2", "small-pool-2-2"))
    assert [row.output_shape for row in overlapping] == [row.output_shape for row in apart]
    assert [row.parameters for row in overlapping] == [row.parameters for row in apart]


@pytest.mark.parametrize("towers", ["one", "apart"])
def test_initial_weights_depend_on_the_width(towers):
    for width in (1 / 16, 1 / 4):
        network = cifar_variant(width=width, towers=towers)
        for layer in (network.fc6, network.fc7):
            assert layer.weight.data.std() == pytest.approx((2 / init.fan_in(layer.weight)) ** 0.5, rel=0.05)


def maps(network, images):
    """{name: output} of each layer."""
    found, x = {}, Tensor(images)
    for name, layer in models.layers(network.eval()):
        x = found[name] = layer(x)
    return found


@pytest.mark.parametrize("towers, meet", [("two", "conv3"), ("apart", "fc8")])
def test_the_towers_meet_in_the_right_layer(towers, meet):
    """A change of the second tower's conv1 changes the first tower only from the layer in which they meet."""
    network = cifar_variant(width=1 / 16, towers=towers)
    before = maps(network, IMAGES)
    kernels = network.conv1.weight
    kernels.data[len(kernels.data) // 2 :] *= -2
    after = maps(network, IMAGES)
    for name, layer in before.items():
        first = slice(0, layer.shape[1] // 2) if name not in ("flatten", "fc8") else slice(None)
        same = (layer.data[:, first] == after[name].data[:, first]).all()
        if name == meet:
            assert not same
            break
        if name != "flatten":
            assert same, name


def totals(name):
    rows = summary(VARIANTS[name](), (3, 32, 32))
    return sum(row.parameters for row in rows), sum(row.macs for row in rows)


def test_towers_are_compared_at_equal_parameters_and_at_equal_time():
    parameters, macs = totals("small-towers")
    assert totals("small-one-tower")[0] == pytest.approx(parameters, rel=0.05)
    assert totals("small-towers-apart-wider")[0] == pytest.approx(parameters, rel=0.01)
    epochs = ARMS["towers"].recipe.epochs
    for arm in ("one-tower-longer", "towers-apart-longer"):
        assert ARMS[arm].recipe.epochs * totals(ARMS[arm].model)[1] == pytest.approx(epochs * macs, rel=0.02)


def test_the_four_layer_network_of_figure_1():
    network = four_layers()
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in network.modules()) == 4
    assert [row.output_shape for row in summary(network, (3, 32, 32)) if row.name.startswith("pool")] == [
        (32, 16, 16),
        (32, 8, 8),
        (64, 4, 4),
    ]
    for name, layer, gain in (("four-layers-relu", "conv2", 2), ("four-layers-tanh", "conv2", 1)):
        weight = getattr(models.create(name), layer).weight.data
        assert weight.std() == pytest.approx(math.sqrt(gain / 800), rel=0.02)


# --- studies ------------------------------------------------------------------------------------------------------------------


def test_studies_and_arms_are_consistent():
    used = set()
    for study in STUDIES.values():
        used |= set(study.arms)
        for claim in study.claims:
            for name in (claim.better, claim.worse):
                assert name in study.arms or any(arm.startswith(name[:-1]) for arm in study.arms if name.endswith("*"))
    assert used == set(ARMS)
    for arm in ARMS.values():
        assert arm.model in models.NETWORKS


def changed(one, other):
    """The settings in which two arms differ."""
    one, other = (vars(arm) | vars(arm.recipe) | {"label": None, "recipe": None, "name": None} for arm in (one, other))
    return {key for key in one if one[key] != other[key]}


def test_the_arms_of_a_claim_differ_in_one_thing():
    """In the network, or in a setting of the recipe; besides, one of two networks may be trained for longer."""
    found = set()
    for study in STUDIES.values():
        for claim in study.claims:
            if study.measure == "test error":
                found.add((study.title, *sorted(changed(ARMS[claim.better], ARMS[claim.worse]))))
    assert found == {
        *[(title, "model") for title in ("Normalisation", "Overlapping pooling", "Dropout", "Two towers")],
        ("Two towers", "epochs", "model"),
        ("Augmentation", "reflection"),
        ("Augmentation", "crop_padding"),
        ("Augmentation", "crop_padding", "reflection"),
        ("Colour noise", "color_noise"),
    }


def test_figure_1_has_constant_rates_and_nothing_against_overfitting():
    arms = [ARMS[arm] for arm in STUDIES["relu"].arms]
    assert {arm.recipe.schedule for arm in arms} == {"step"}
    assert all(arm.recipe.step_epochs >= arm.recipe.epochs for arm in arms)
    assert all((arm.recipe.weight_decay, arm.recipe.crop_padding, arm.recipe.reflection) == (0, 0, False) for arm in arms)
    for arm in arms:
        assert changed(arm, arms[0]) <= {"model", "lr", "epochs", "step_epochs"}


def test_the_small_runs_have_the_documented_sizes():
    small = [arm for arm in ARMS.values() if arm.model.startswith("small")]
    assert {arm.recipe.batch_size for arm in small} == {32}
    sizes = {(arm.limit_train, arm.recipe.epochs) for arm in small}
    assert sizes == {(10_000, 5), (10_000, 6), (10_000, 9), (2_500, 20), (2_500, 60)}


# --- verdicts -----------------------------------------------------------------------------------------------------------------


def rows(*accuracies, key="test_accuracy"):
    return [{"epoch": i + 1, key: accuracy} for i, accuracy in enumerate(accuracies)]


def test_test_error_and_epochs_to_goal():
    assert verdicts.test_error(rows(0.1, 0.75)) == pytest.approx(25)
    reached = rows(0.5, 0.7, 0.8, 0.9, key="train_accuracy")
    assert verdicts.epochs_to_goal(reached) == pytest.approx(2.5)
    assert verdicts.epochs_to_goal(rows(0.9, key="train_accuracy")) == pytest.approx(1 - 0.15 / 0.9)
    assert verdicts.epochs_to_goal(reached[:2]) == math.inf


def test_the_quantiles_are_those_of_students_t():
    """The integral of the density from -t to t is .95."""
    for freedom, t in enumerate(verdicts.T95, 1):
        x, dx = np.linspace(-t, t, 20_001, retstep=True)
        constant = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
        density = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        assert (density.sum() - density[0]) * dx == pytest.approx(0.95, abs=5e-5)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 6)])
def test_the_interval_covers_the_difference_in_95_percent_of_cases(sizes):
    """In many draws from two distributions whose means differ by 1."""
    draws = np.random.default_rng(0)
    lower, higher = (draws.normal(mean, 1, (20_000, size)).tolist() for mean, size in enumerate(sizes))
    claim = Claim("", "a", "b")
    found = [verdicts.judge(claim, {"a": a, "b": b}) for a, b in zip(lower, higher, strict=True)]
    hits = [v.low <= 1 <= v.high for v in found]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(
    "better, worse, factor, word",
    [
        ([1.0, 1.1, 0.9], [5.0, 5.1, 4.9], None, "reproduced"),
        ([5.0, 5.1, 4.9], [1.0, 1.1, 0.9], None, "not reproduced"),
        ([1.0, 3.0, 2.0], [1.1, 3.1, 2.1], None, "not decided at n = 3"),
        ([1.0], [5.0], None, "not decided at n = 1"),
        ([1.0, 1.1, 0.9], [6.0, 6.1, 5.9], 6.0, "reproduced"),
        ([1.0, 1.1, 0.9], [2.0, 2.1, 1.9], 6.0, "not reproduced"),
        ([1.0, 9.0], [6.0, 40.0], 6.0, "not decided at n = 2"),
        ([1.0], [6.0, 6.1], 6.0, "not decided at n = 1"),
    ],
)
def test_verdicts(better, worse, factor, word):
    verdict = verdicts.judge(Claim("", "a", "b", factor), {"a": better, "b": worse})
    assert verdict.word == word and verdict.told("points").endswith(word)
    assert (" times" in verdict.told("points")) == (factor is not None)
    assert (" to " in verdict.told("points")) == (min(len(better), len(worse)) > 1)


def test_a_star_stands_for_the_best_arm_that_reached_the_goal():
    values = {"x-1": [3.0, 3.0], "x-2": [2.0, 2.5], "x-3": [1.0, math.inf], "y-1": [9.0, 9.5]}
    assert [verdicts.best(name, values) for name in ("x-*", "y-*")] == ["x-2", "y-1"]
    assert verdicts.best("x-*", values | {"x-4": [1.5]}) == "x-2"  # it has been run more often
    assert verdicts.judge(Claim("", "x-*", "y-*"), values).found == pytest.approx(9.25 - 2.25)
    assert verdicts.judge(Claim("", "x-*", "z-*"), values) is None


@pytest.mark.parametrize(
    "values, text",
    [
        ([4.0], "4.00"),
        ([3.0, 5.0], "4.00 ± 1.41 (3.00 to 5.00)"),
        ([math.inf], "not reached"),
        ([3.0, math.inf, math.inf], "not reached in 2 of 3"),
    ],
)
def test_the_text_of_a_spread(values, text):
    assert verdicts.spread(values) == text


# --- the command --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """Replaces the studies by one with two arms, of a tiny network on digits."""
    recipe = dataclasses.replace(RECIPES["digits"], epochs=2, batch_size=8)
    arms = {
        "one": Arm("the one", "tiny", recipe, 40),
        "other": Arm("the other", "tiny", dataclasses.replace(recipe, lr=1e-9), 40),
    }
    study = Study("A study", "nobody", {"one": 2, "other": 1}, (Claim("the one is better", "one", "other"),))
    monkeypatch.setitem(train.DEFAULTS, "data", "digits")
    monkeypatch.setattr(studies, "ARMS", arms)
    for module in (reproduction, reproduce):
        monkeypatch.setattr(module, "ARMS", arms)
    monkeypatch.setattr(reproduce, "STUDIES", {"small": study, "half": dataclasses.replace(study, arms={"one": 1})})
    with tiny_network():
        yield


def call(tmp_path, *names):
    return reproduce.main([*names, "--runs", str(tmp_path / "runs")])


def contents(place):
    return {path.name: (path / "metrics.jsonl").read_bytes() for path in place.iterdir()}


def test_a_part_is_run_once_and_reported(small, tmp_path, capsys):
    assert call(tmp_path, "small") == 0
    before = contents(tmp_path / "runs")
    assert set(before) == {"one-0", "one-1", "other-0"}
    assert RunFolder.read(tmp_path / "runs/one-1").config.seed == 1
    assert not list((tmp_path / "runs").rglob("*.safetensors"))
    lines = capsys.readouterr().out.splitlines()
    errors = [100 * (1 - json.loads(before[f"one-{seed}"].splitlines()[-1])["test_accuracy"]) for seed in (0, 1)]
    assert re.search(rf"the one +2  {np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}", "\n".join(lines))
    assert lines[-1].startswith("the one is better: ") and lines[-1].endswith("points: not decided at n = 1")
    assert call(tmp_path, "all") == 0
    assert contents(tmp_path / "runs") == before


def test_a_part_that_is_named_twice_is_reported_once(small, tmp_path, capsys):
    assert call(tmp_path, "half", "half") == 0
    assert capsys.readouterr().out.count("A study (nobody)") == 1


def test_the_plan_lists_parts_and_minutes(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reproduction, "_seconds_an_image", lambda *of: 0.006)
    assert call(tmp_path, "half") == 0
    assert capsys.readouterr().out.endswith("the one is better: not decided at n = 0\n")
    assert call(tmp_path) == 0
    _, first, second, last = capsys.readouterr().out.splitlines()
    minutes = 2 * 2 * (40 + 10_000 / 3) * 0.006 / 60
    assert first.split()[:4] == ["small", "3", "1", f"{minutes:.0f}"]
    assert second.split()[:4] == ["half", "1", "1", "0"]
    assert last.split()[:3] == ["all", "3", f"{minutes:.0f}"]


def test_the_plan_is_measured_on_the_first_of_the_given_devices(small, tmp_path, monkeypatch):
    used = set()
    monkeypatch.setattr(reproduction, "_seconds_an_image", lambda model, batch_size, device: used.add(device) or 1.0)
    assert call(tmp_path, "--backend", "cupy", "--devices", "1,0") == 0
    assert used == {"cupy:1"}


@pytest.mark.parametrize(
    "arm, images",
    [
        ("cifar-bn-default", 10 * (50_000 + 2 * 10_000 / 3)),
        ("relu-0.01", 24 * (10_000 + 1_000 / 3)),
        ("base", 5 * (10_000 + 10_000 / 3)),
    ],
)
def test_the_minutes_depend_on_epochs_images_and_views(monkeypatch, arm, images):
    monkeypatch.setattr(reproduction, "_seconds_an_image", lambda *of: 0.6)
    wanted = reproduction.run_config(train.config(Namespace()), arm, 7)
    assert wanted.seed == 7 and reproduction.minutes_left(None, wanted, "numpy") == pytest.approx(0.01 * images)


def test_the_minutes_are_measured_on_real_steps():
    assert 0 < reproduction._seconds_an_image("four-layers-relu", 8, "numpy") < 10


def test_a_stopped_part_can_be_continued(small, tmp_path, monkeypatch, capsys):
    assert call(tmp_path, "half") == 0
    with monkeypatch.context() as patched:
        patched.setattr(launch, "stop_signal", lambda: [2])
        assert call(tmp_path / "again", "small") == 130
    assert re.fullmatch(r"[a-z. ]+: stopped; the same command resumes it\n", capsys.readouterr().err)
    stopped = tmp_path / "again/runs"
    assert [path.name for path in stopped.iterdir()] == ["one-0"] and not RunFolder.read(stopped / "one-0").metrics()
    assert call(tmp_path / "again", "small") == 0
    assert metrics(stopped / "one-0") == metrics(tmp_path / "runs/one-0") and len(contents(stopped)) == 3


def test_a_run_that_diverges_is_left_out(small, tmp_path, monkeypatch, capsys):
    arm = reproduction.ARMS["one"]
    recipe = dataclasses.replace(arm.recipe, lr=1e30)
    monkeypatch.setitem(reproduction.ARMS, "one", dataclasses.replace(arm, recipe=recipe))
    assert call(tmp_path, "small") == 1
    out, err = capsys.readouterr()
    assert re.findall(r"(\S+) diverged, the other runs continue: the loss is (?:nan|inf)", err) == [
        str(tmp_path / "runs" / name) for name in ("one-0", "one-1")
    ]
    assert re.search(r"the one +0\nthe other +1  ", out)


def test_a_full_disk_stops_a_part(small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "save_checkpoint", full)
    with pytest.raises(TrainingError, match="one-0: No space left"):
        call(tmp_path, "small")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one-0"]


def test_a_resumed_run_takes_the_given_devices(small, tmp_path, capsys):
    assert call(tmp_path, "half", "--devices", "1") == 0
    path = tmp_path / "runs/one-0"
    for option, devices in ([], [1]), (["--devices", "2"], [2]):
        (path / "metrics.jsonl").write_bytes(b"")
        assert call(tmp_path, "half", *option) == 0
        assert RunFolder.read(path).config.devices == devices


@pytest.mark.parametrize("moment", ["training", "drawing", "between"])
def test_a_signal_stops_a_part_in_its_second_run_too(small, tmp_path, monkeypatch, capsys, moment):
    """In training, while the run's pictures are drawn, and after the run."""
    module, name, number = {
        "training": (launch, "launch", 2),
        "drawing": (reporter.report, "write", 4),  # it is called after each epoch
        "between": (reproduction, "forget_weights", 2),
    }[moment]
    before, calls = getattr(module, name), []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return before(*arguments, **options)

    monkeypatch.setattr(module, name, interrupted)
    monkeypatch.setattr(entry, "_first", None)
    assert call(tmp_path, "small") == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("stopped; the same command resumes it")
    folders = sorted((tmp_path / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    done = [len(RunFolder.read(path).metrics()) == 2 for path in folders]
    assert done == [True, moment != "training"]


@pytest.mark.parametrize("epochs", [1, 2])
def test_runs_of_another_process_are_left_alone(small, tmp_path, capsys, epochs):
    """Also after the last epoch: its pictures are still drawn then."""
    assert call(tmp_path, "half") == 0
    path = tmp_path / "runs/one-0"
    (path / "metrics.jsonl").write_bytes(b"".join((path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:epochs]))
    (path / "checkpoints").mkdir()
    lock = FolderLock()
    lock.acquire(path)
    assert call(tmp_path, "small") == 0
    out = capsys.readouterr().out
    lock.release()
    assert f"{path} is being run by another process" in out and len(contents(tmp_path / "runs")) == 3
    assert (path / "checkpoints").exists()


@pytest.mark.parametrize("function", ["start", "resume"])
def test_a_run_that_another_process_takes_at_the_same_time_is_left_alone(small, tmp_path, monkeypatch, capsys, function):
    """It takes the run after its state was read."""
    path, other = tmp_path / "runs/one-0", []
    if function == "resume":
        assert call(tmp_path, "half") == 0
        (path / "metrics.jsonl").write_bytes(b"")
    before = getattr(launch, function)

    def late(what, how, **options):
        if not other and function == "start":
            other.append(RunFolder.create(path, what))
        elif not other:
            other.append(RunFolder.read(path))
            other[0].hold()
        return before(what, how, **options)

    monkeypatch.setattr(launch, function, late)
    assert call(tmp_path, "small") == 0
    out = capsys.readouterr().out
    other[0].lock.release()
    assert f"{path} is being run by another process" in out and len(list((tmp_path / "runs").iterdir())) == 3
    assert not RunFolder.read(path).metrics()


def test_a_run_with_other_settings_is_refused(small, tmp_path, monkeypatch):
    assert call(tmp_path, "half") == 0
    arm = reproduction.ARMS["one"]
    monkeypatch.setitem(reproduction.ARMS, "one", dataclasses.replace(arm, recipe=dataclasses.replace(arm.recipe, lr=0.5)))
    with pytest.raises(UserError, match=r"one-0 has lr 0.01, but the study now has 0.5; remove it, or give another --runs"):
        call(tmp_path, "half")


def test_only_the_weights_of_small_runs_are_removed(small, tmp_path, monkeypatch):
    monkeypatch.setitem(reproduction.ARMS, "one", dataclasses.replace(reproduction.ARMS["one"], limit_train=None))
    assert call(tmp_path, "half") == 0
    assert list((tmp_path / "runs/one-0/checkpoints").glob("*.safetensors"))


def test_a_run_that_was_killed_before_its_last_checkpoint_is_resumed(small, tmp_path, monkeypatch):
    monkeypatch.setitem(reproduction.ARMS, "one", dataclasses.replace(reproduction.ARMS["one"], limit_train=None))
    assert call(tmp_path, "half") == 0
    path = tmp_path / "runs/one-0"
    before, last = metrics(path), RunFolder.read(path).checkpoints()[-1]
    last.unlink()
    assert call(tmp_path, "half") == 0
    assert last.exists() and metrics(path) == before


def test_keep_copies_config_and_metrics(small, tmp_path):
    assert call(tmp_path, "half", "--keep", str(tmp_path / "kept")) == 0
    kept = tmp_path / "kept/one-0"
    assert sorted(path.name for path in kept.iterdir()) == ["config.json", "metrics.jsonl"]
    run, copy = RunFolder.read(tmp_path / "runs/one-0"), RunFolder.read(kept)
    assert copy.config == run.config and copy.metrics() == run.metrics()
    run.config = dataclasses.replace(run.config, data_dir="/a/place/of/this/machine")
    reproduction.keep(run, tmp_path / "kept")
    assert RunFolder.read(kept).config.data_dir is None
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write there"):
        call(tmp_path, "half", "--keep", str(tmp_path / "file/kept"))


def test_the_runs_are_not_replaced_by_their_copies(small, tmp_path):
    (tmp_path / "link").symlink_to("runs")
    with pytest.raises(UserError, match=f"^--keep {tmp_path}/link: this is the folder of the runs; give another$"):
        call(tmp_path, "half", "--keep", str(tmp_path / "link"))
    assert not (tmp_path / "runs").exists()


def test_keep_is_refused_for_the_plan():
    with pytest.raises(UserError, match="^--keep kept: the plan has no runs to copy; name a part, or all$"):
        reproduce.main(["--keep", "kept"])


@pytest.mark.parametrize("option", ["--runs", "--keep", "--data-dir"])
def test_a_folder_without_a_name_is_refused(option):
    with pytest.raises(UserError, match=f"argument {option}: give the name of a folder"):
        reproduce.main([option, ""])


def test_a_folder_that_cannot_be_made_is_refused(small, tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match=f"^{tmp_path}/runs/one-0: cannot make {tmp_path}/runs: File exists$"):
        call(tmp_path, "half")


def test_mpiexec_is_refused(monkeypatch):
    monkeypatch.setattr(mpi, "started", lambda: True)
    with pytest.raises(UserError, match="run it without mpiexec"):
        reproduce.main(["pooling"])


def test_an_unknown_part_is_refused():
    with pytest.raises(UserError, match="there is no part 'none'; there are deck, "):
        reproduce.main(["none"])
