"""Weights are read from runs and files, written to files, and used in new runs."""

import importlib.util
import json
import os
import re
import shutil
import sys
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import save_file

import alexnet
from alexnet import models, weights
from alexnet.commands import export
from alexnet.preparation import TORCHVISION, Preparation
from alexnet.run import RunFolder
from alexnet.weights import Weights
from minidl import Tensor, no_grad, serialization
from minidl.errors import UserError
from minidl.nn import init
from tests.helpers import experiments, folders
from tests.helpers.experiments import TINY

INSTALLED = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
ONNX = pytest.mark.skipif(not INSTALLED, reason="onnx and onnxruntime are not installed")


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    with experiments.tiny_network():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has learned to classify pictures of three colours."""
    place = tmp_path_factory.mktemp("trained")
    data = folders.split(place / "data", {"red": 16, "green": 16, "blue": 16}, {"red": 4, "green": 4, "blue": 4})
    options = ["--data", data, "--model", "tiny", "--batch-size", 8, "--epochs", 6, "--lr", 0.02]
    assert experiments.run(*options, "--out", place / "run") == (0, "")
    assert experiments.metrics(place / "run")[-1]["test_accuracy"] == 1
    return place / "run"


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def state_of(loaded: Weights):
    return {name: array.copy() for name, array in loaded.network.state_dict().items()}


def same(one, other):
    one, other = state_of(one), state_of(other)
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


# --- from a run -----------------------------------------------------------------------------------------------------------


def test_a_runs_weights_are_read_with_classes_and_preparation(run):
    loaded = weights.read(run)
    arrays = serialization.load(experiments.checkpoints(run)[-1])
    for name, array in state_of(loaded).items():
        np.testing.assert_array_equal(array, arrays[f"model.{name}"])
    config = RunFolder.read(run).config
    assert (loaded.model, loaded.classes, loaded.preparation) == ("tiny", ["blue", "green", "red"], config.preparation)
    assert (loaded.padding, loaded.reflection, loaded.padding_mode) == (config.recipe.crop_padding, True, "reflect")
    assert not loaded.network.training


def test_the_best_or_the_newest_checkpoint_can_be_chosen(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[-2]["test_accuracy"], rows[-1]["test_accuracy"] = 1.0, 0.5
    for row in rows[:-2]:
        row["test_accuracy"] = 0.1
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = experiments.checkpoints(run)
    for which, file in (("best", files[-2]), ("newest", files[-1])):
        np.testing.assert_array_equal(
            state_of(weights.read(run, which))["fc2.weight"], serialization.load(file)["model.fc2.weight"]
        )


def test_the_best_checkpoint_is_one_that_exists(run):
    """A kill between an epoch's metrics and its checkpoint leaves an epoch without one."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row, accuracy in zip(rows, [0.1] * (len(rows) - 2) + [0.9, 1.0], strict=True):
        row["test_accuracy"] = accuracy
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before, last = experiments.checkpoints(run)[-2:]
    last.unlink()
    expected = serialization.load(before)["model.fc2.weight"]
    np.testing.assert_array_equal(state_of(weights.read(run, "best"))["fc2.weight"], expected)


def test_a_damaged_checkpoint_is_named_and_the_previous_one_is_used(run, monkeypatch):
    told = []
    monkeypatch.setattr(weights.entry, "tell", told.append)
    before, newest = experiments.checkpoints(run)[-2:]
    newest.write_bytes(newest.read_bytes()[:1000])
    np.testing.assert_array_equal(state_of(weights.read(run))["fc2.weight"], serialization.load(before)["model.fc2.weight"])
    assert len(told) == 1 and told[0].startswith(f"{newest} is not a checkpoint, or is damaged") and before.name in told[0]
    for file in experiments.checkpoints(run):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="is not a checkpoint, or is damaged"):
        weights.read(run)


def test_a_run_without_a_checkpoint_is_refused(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint; a run saves one"):
        weights.read(run)


def test_a_run_of_an_earlier_version_is_refused(run):
    settings = json.loads((run / "config.json").read_text())
    for key in ("classes", "channels", "resize", "image_size", "mean", "std", "draft", "files"):
        del settings[key]
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="was written by an earlier version"):
        weights.read(run)


def test_a_run_of_an_earlier_version_can_be_used_after_it_is_resumed(tmp_path):
    """Neither its config nor its checkpoint has the classes; resuming it adds them."""
    assert experiments.run(*TINY, "--epochs", 1, "--out", tmp_path / "run") == (0, "")
    later = ["classes", "channels", "resize", "image_size", "mean", "std", "draft", "files", "crop", "test_views"]
    config = json.loads((tmp_path / "run/config.json").read_text())
    file = experiments.checkpoints(tmp_path / "run")[-1]
    arrays, facts = weights.checkpoint.load(file)
    for settings in (config, facts["config"]):
        for key in later:
            del settings[key]
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    weights.checkpoint.save(file, arrays, facts)
    assert experiments.run("--resume", tmp_path / "run", "--epochs", 2) == (0, "")
    assert weights.read(tmp_path / "run").classes == list("0123456789")


# --- files ------------------------------------------------------------------------------------------------------------------


def exported(run, file):
    assert export.main([str(run), str(file)]) == 0
    return file


def test_an_exported_file_holds_the_same_network(run, tmp_path, capsys):
    file = exported(run, tmp_path / "a.safetensors")
    assert capsys.readouterr().out.splitlines()[-1] == str(file)
    own, again = weights.read(run), weights.read(file)
    assert set(serialization.load(file)) == set(own.network.state_dict())
    assert same(own, again)
    assert again.metadata() == own.metadata()
    exported(file, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == file.read_bytes()


def test_float64_weights_are_exported_as_float32(tmp_path):
    assert experiments.run(*TINY, "--epochs", 1, "--dtype", "float64", "--out", tmp_path / "run") == (0, "")
    loaded = weights.read(tmp_path / "run")
    assert next(loaded.network.parameters()).dtype == np.float64
    again = weights.read(exported(tmp_path / "run", tmp_path / "a.safetensors"))
    assert next(again.network.parameters()).dtype == np.float32


def torchvision_state(num_classes=7):
    with init.skipped():
        state = alexnet.create("alexnet-torchvision", num_classes).state_dict()
    return {name: np.zeros(array.shape, np.float32) for name, array in state.items()}


@pytest.mark.parametrize("shape", [(), (7,), (0, 4096), (300_000_000, 0)])
def test_torchvisions_last_layer_of_a_wrong_shape_is_refused(tmp_path, shape):
    save_file({"classifier.6.weight": np.zeros(shape, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=re.escape(f"classifier.6.weight is {shape}")):
        weights.read(tmp_path / "a.safetensors")


def test_torchvisions_weights_are_read(tmp_path):
    state = torchvision_state()
    state["classifier.6.bias"][:] = np.arange(7)
    save_file(state, tmp_path / "alexnet.safetensors")
    loaded = weights.read(tmp_path / "alexnet.safetensors")
    assert (loaded.model, loaded.classes, loaded.preparation) == ("alexnet-torchvision", list("0123456"), TORCHVISION)
    assert state_of(loaded)["classifier.6.bias"].tolist() == list(range(7))


def test_a_pth_file_needs_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "alexnet.pth").write_bytes(b"x")
    with pytest.raises(UserError, match=r"alexnet.pth: to read it, install PyTorch; or give the weights as .safetensors"):
        weights.read(tmp_path / "alexnet.pth")


def damaged(file, change):
    """A copy of an exported file with other arrays or metadata."""
    arrays, metadata = serialization.read(file)
    about = json.loads(metadata["minidl"])
    change(arrays, about)
    other = file.with_name("damaged.safetensors")
    serialization.write(other, arrays, {"minidl": json.dumps(about)})
    return other


DAMAGES = {
    "there is no network 'resnet'": lambda arrays, about: about.update(model="resnet"),
    r"fc2.bias is \(3,\), but in tiny with 2 classes it is \(2,\)": lambda arrays, about: about["classes"].pop(),
    "conv1.bias is not in both the file and": lambda arrays, about: arrays.pop("conv1.bias"),
    "extra is not in both the file and": lambda arrays, about: arrays.update(extra=np.zeros(3, np.float32)),
    "fc2.bias has NaN or infinite numbers": lambda arrays, about: arrays["fc2.bias"].__setitem__(0, np.nan),
    "fc2.bias is int32": lambda arrays, about: arrays.update({"fc2.bias": np.zeros(3, np.int32)}),
    "bn1.num_batches_tracked is float32": lambda arrays, about: arrays.update(
        {"bn1.num_batches_tracked": np.zeros((), np.float32)}
    ),
    "its metadata have version 2": lambda arrays, about: about.update(version=2),
    "mean and std need a number for each of 3 channels": lambda arrays, about: about["preparation"]["mean"].pop(),
    "image_size 99 is larger than resize 12": lambda arrays, about: about["preparation"].update(image_size=99),
    "Expected": lambda arrays, about: about.update(classes="red"),
    "unknown field `more`": lambda arrays, about: about.update(more=1),
    "missing required field `model`": lambda arrays, about: about.pop("model"),
    r"conv1.weight is \(4, 3, 3, 3\), but in tiny": lambda arrays, about: about.update(
        preparation={**about["preparation"], "channels": 1, "mean": [0.0], "std": [1.0]}
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_weights_that_do_not_fit_are_refused(run, tmp_path, message):
    file = damaged(exported(run, tmp_path / "a.safetensors"), DAMAGES[message])
    with pytest.raises(UserError, match=f"cannot read the weights of a network from .*{message}") as error:
        weights.read(file)
    assert "\n" not in str(error.value)


def test_metadata_that_are_nested_too_deep_are_refused(tmp_path):
    serialization.write(tmp_path / "a.safetensors", {"a": np.zeros(3)}, {"minidl": '{"preparation":' + '{"a":' * 100_000})
    with pytest.raises(UserError, match="its metadata are nested too deep"):
        weights.read(tmp_path / "a.safetensors")


def test_a_network_that_is_too_large_for_the_memory_is_refused(run, tmp_path, monkeypatch):
    file = exported(run, tmp_path / "a.safetensors")
    monkeypatch.setattr(models, "create", mock.Mock(side_effect=MemoryError))
    with pytest.raises(UserError, match="the memory is too small for tiny with images of 12 pixels a side"):
        weights.read(file)


def empty(file):
    file.write_bytes(b"")


def cut(file):
    file.write_bytes(file.read_bytes()[:-10])


def text(file):
    file.write_text("no weights")


def nothing(file):
    file.unlink()


def huge(file):
    with open(file, "wb") as opened:
        opened.truncate(1 << 40)


def pipe(file):
    file.unlink()
    os.mkfifo(file)


def other_names(file):
    save_file({"a": np.zeros(3)}, file)


@pytest.mark.parametrize("damage", [empty, cut, text, nothing, huge, pipe, other_names])
def test_files_without_weights_are_refused(run, tmp_path, damage):
    """tests/parity does the same with files of PyTorch."""
    file = exported(run, tmp_path / "a.safetensors")
    damage(file)
    with pytest.raises(UserError, match="a.safetensors") as error:
        weights.read(file)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="this is not a run"):
        weights.read(tmp_path)


@pytest.mark.parametrize("name", ["a.bin", "a", "a.onnx.txt"])
def test_other_endings_are_refused(run, tmp_path, name):
    with pytest.raises(UserError, match=r"give a name that ends with .safetensors or .onnx"):
        export.main([str(run), str(tmp_path / name)])
    assert not (tmp_path / name).exists()


@ONNX
@pytest.mark.parametrize("ending", [".safetensors", ".onnx"])
def test_a_file_that_cannot_be_written_is_one_line(run, tmp_path, ending):
    with pytest.raises(UserError, match="cannot write .*/nowhere/a"):
        export.main([str(run), str(tmp_path / "nowhere" / f"a{ending}")])


# --- ONNX -------------------------------------------------------------------------------------------------------------------


def logits_of(file, pixels):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (x,) = session.get_inputs()
    assert (x.name, x.type, x.shape[1:]) == ("pixels", "tensor(float)", list(pixels.shape[1:]))
    assert session.get_outputs()[0].name == "logits"
    return session.run(None, {"pixels": pixels})[0], session.get_modelmeta().custom_metadata_map


def expected_logits(loaded, pixels):
    preparation = loaded.preparation
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (preparation.mean, preparation.std))
    with no_grad():
        return loaded.network(Tensor((pixels - mean) / std)).data


@ONNX
def test_an_onnx_file_gives_the_same_logits(run, tmp_path):
    file = exported(run, tmp_path / "a.onnx")
    loaded = weights.read(run)
    for n in (1, 5):
        pixels = np.random.default_rng(n).integers(0, 256, (n, 3, 12, 12)).astype(np.float32)
        logits, about = logits_of(file, pixels)
        np.testing.assert_allclose(logits, expected_logits(loaded, pixels), atol=1e-4)
    assert json.loads(about["classes"]) == loaded.classes and about["model"] == "tiny"
    assert Preparation.from_flat(json.loads(about["preparation"])) == loaded.preparation


@ONNX
@pytest.mark.parametrize(
    "model, size", [("cifar-bn", 32), ("cifar-lrn", 33), ("alexnet-2012", 70), ("net-145", 70), ("alexnet-torchvision", 224)]
)
def test_all_networks_can_be_exported_as_onnx(tmp_path, model, size):
    """The running statistics are random. In alexnet-2012 windows extend beyond the image."""
    options = {} if model == "alexnet-torchvision" else {"image_size": size}
    network = alexnet.create(model, 4, **options).eval()
    draws = np.random.default_rng(0)
    for name, array in network.state_dict().items():
        if "running" in name:
            array[...] = draws.uniform(0.5, 2, array.shape)
        elif name.endswith("bias"):
            array[...] = draws.normal(0, 0.5, array.shape)
        elif array.ndim > 1:
            array[...] = draws.normal(0, 2 / np.sqrt(array[0].size), array.shape)
    preparation = Preparation(3, size, size, [120.0, 110.0, 100.0], [60.0, 55.0, 70.0])
    loaded = Weights(network, model, list("abcd"), preparation)
    weights.write(tmp_path / "a.safetensors", loaded)
    file = exported(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    pixels = draws.integers(0, 256, (2, 3, size, size)).astype(np.float32)
    expected = expected_logits(loaded, pixels)
    np.testing.assert_allclose(logits_of(file, pixels)[0], expected, atol=1e-4 * max(1, abs(expected).max()))


@ONNX
def test_pooling_that_onnx_does_not_have_is_refused(tmp_path):
    preparation = Preparation(3, 300, 300, [0.0] * 3, [1.0] * 3)
    with init.skipped():
        network = alexnet.create("alexnet-torchvision", 3)
    for array in network.state_dict().values():
        array[...] = 0
    weights.write(tmp_path / "a.safetensors", Weights(network, "alexnet-torchvision", list("abc"), preparation))
    with pytest.raises(UserError, match="avgpool makes 6 x 6 from 8 x 8 with windows of several sizes"):
        export.main([str(tmp_path / "a.safetensors"), str(tmp_path / "a.onnx")])
    assert not (tmp_path / "a.onnx").exists()


@ONNX
def test_a_graph_with_other_logits_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export.onnx_file.Graph, "layer", without_relu(export.onnx_file.Graph.layer))
    with pytest.raises(UserError, match="ONNX Runtime's logits differ by"):
        export.main([str(run), str(tmp_path / "a.onnx")])
    assert not (tmp_path / "a.onnx").exists()


def without_relu(layer):
    return lambda graph, name, module: None if name == "relu1" else layer(graph, name, module)


@ONNX
def test_a_layer_that_onnx_does_not_have_is_refused(run, tmp_path, monkeypatch):
    with_tanh = lambda *args, **options: tanh_of(experiments.tiny(*args, **options))
    monkeypatch.setitem(models.MODELS, "tiny", with_tanh)
    with pytest.raises(UserError, match=r"relu1 is a Tanh\(\), which cannot be written to an ONNX file"):
        export.main([str(run), str(tmp_path / "a.onnx")])


def tanh_of(network):
    from minidl.nn import Tanh

    network.relu1 = Tanh()
    return network


@ONNX
@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_onnx_an_error_says_what_to_install(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"to write ONNX files, pip install -e '.\[onnx\]' first"):
        export.main([str(run), str(tmp_path / "a.onnx")])
    assert not (tmp_path / "a.onnx").exists()


# --- into a new run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shades(tmp_path):
    """Images of four classes; the weights are for three."""
    counts = {"red": 8, "green": 8, "blue": 8, "grey": 8}
    return folders.split(tmp_path / "shades", counts, counts)


def start(data, init_from, out, *options):
    """A new run of one epoch, from weights, or without if init_from is None."""
    source = ["--model", "tiny"] if init_from is None else ["--init", init_from]
    return experiments.run("--data", data, *source, "--batch-size", 8, "--epochs", 1, "--lr", 1e-9, "--out", out, *options)


@pytest.mark.parametrize("kind", ["run", "file"])
def test_a_run_from_weights_gets_a_new_last_layer(run, tmp_path, shades, capsys, monkeypatch, kind):
    source = run if kind == "run" else exported(run, tmp_path / "a.safetensors")
    lines = []
    monkeypatch.setattr("builtins.print", lambda *words, **options: lines.append(" ".join(map(str, words))))
    assert start(shades, source, tmp_path / "new") == (0, "")
    monkeypatch.undo()
    assert f"fc2 keeps its initial weights: it has 4 classes, but in {source} 3" in lines
    before, after = state_of(weights.read(run)), state_of(weights.read(tmp_path / "new"))
    np.testing.assert_allclose(after["conv1.weight"], before["conv1.weight"], atol=1e-6)
    assert after["fc2.weight"].shape == (4, 36)
    config, old = RunFolder.read(tmp_path / "new").config, RunFolder.read(run).config
    assert config.model == "tiny" and config.init == str(source)
    # The weights were trained with these, not with those of the new images.
    assert (config.preparation.mean, config.preparation.std) == (old.preparation.mean, old.preparation.std)


def test_a_last_layer_of_the_same_size_is_kept(run, tmp_path):
    config = RunFolder.read(run).config
    assert start(config.data, run, tmp_path / "new", "--recipe", "deck") == (0, "")
    before, after = state_of(weights.read(run)), state_of(weights.read(tmp_path / "new"))
    np.testing.assert_allclose(after["fc2.weight"], before["fc2.weight"], atol=1e-6)
    assert experiments.metrics(tmp_path / "new")[-1]["test_accuracy"] == 1


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_from_weights_is_resumed_without_them(run, tmp_path, shades, epochs):
    """Unless it was killed before its first checkpoint."""
    assert start(shades, run, tmp_path / "new", "--recipe", "deck", "--lr", 0.01) == (0, "")
    if epochs == 1:
        shutil.rmtree(tmp_path / "new/checkpoints")
        (tmp_path / "new/metrics.jsonl").unlink()
        status, message = experiments.run("--resume", tmp_path / "new")
        assert (status, message) == (0, "")
    shutil.rmtree(run)
    assert experiments.run("--resume", tmp_path / "new", "--epochs", 2) == (0, "")


def test_weights_of_another_network_are_refused(run, tmp_path, shades):
    status, message = start(shades, run, tmp_path / "new", "--model", "cifar-bn")
    assert status == 2 and message.startswith(f"--init {run}: the state does not fit this network: missing ")
    assert message.endswith("give the weights' network and image size with --model and --image-size")
    assert not (tmp_path / "new").exists()


def test_images_get_the_size_that_the_weights_were_trained_with(tmp_path, shades):
    assert start(shades, None, tmp_path / "large", "--image-size", 20) == (0, "")
    assert start(shades, tmp_path / "large", tmp_path / "new") == (0, "")
    assert RunFolder.read(tmp_path / "new").config.preparation.image_size == 20
    before, after = (state_of(weights.read(tmp_path / name)) for name in ("large", "new"))
    np.testing.assert_allclose(after["fc2.weight"], before["fc2.weight"], atol=1e-6)


def test_weights_for_images_of_another_size_are_refused(tmp_path, shades):
    """The last layer, which depends on the size, must not be replaced in silence."""
    assert start(shades, None, tmp_path / "large", "--image-size", 20) == (0, "")
    status, message = start(shades, tmp_path / "large", tmp_path / "new", "--image-size", 12)
    assert status == 2 and message.startswith(f"--init {tmp_path / 'large'}: the state does not fit this network: fc2.weight")
    assert message.endswith("image size with --model and --image-size") and not (tmp_path / "new").exists()


def test_weights_for_other_channels_are_refused(run, tmp_path):
    status, message = experiments.run("--data", "digits", "--init", run, "--out", tmp_path / "new")
    assert status == 2 and "its images have 3 channels, but those of digits 1" in message


def test_missing_weights_are_refused(tmp_path, shades):
    status, message = start(shades, tmp_path / "nowhere", tmp_path / "new")
    assert status == 2 and "there is no such file" in message and not (tmp_path / "new").exists()


@pytest.mark.parametrize("prefix", ["conv1", "conv,bn", "bn1.weight"])
def test_frozen_parameters_and_running_statistics_do_not_change(run, tmp_path, shades, prefix):
    assert start(shades, run, tmp_path / "new", "--freeze", prefix, "--lr", 0.05) == (0, "")
    before, after = state_of(weights.read(run)), state_of(weights.read(tmp_path / "new"))
    for name in before:
        frozen = name.startswith(tuple(prefix.split(","))) or (prefix == "conv,bn" and name.startswith("bn1"))
        if before[name].shape == after[name].shape:
            assert (before[name] == after[name]).all() == frozen, name
    saved = serialization.load(experiments.checkpoints(tmp_path / "new")[-1])
    assert not any(name.startswith(tuple(f"velocity.{part}" for part in prefix.split(","))) for name in saved)


def test_a_resumed_frozen_run_ends_the_same(run, tmp_path, shades):
    options = ["--freeze", "conv,bn", "--recipe", "deck", "--lr", 0.01]
    assert start(shades, run, tmp_path / "whole", *options, "--epochs", 2) == (0, "")
    assert start(shades, run, tmp_path / "halves", *options) == (0, "")
    assert experiments.run("--resume", tmp_path / "halves", "--epochs", 2) == (0, "")
    assert experiments.weights(tmp_path / "halves") == experiments.weights(tmp_path / "whole")


@pytest.mark.parametrize(
    "prefix, message",
    [
        ("features", "--freeze features: no parameter's name begins with it; those of tiny begin with conv1, bn1, fc2"),
        ("c,b,f", "--freeze c,b,f leaves nothing to train"),
        ("", "'' is not a name prefix"),
        ("conv,,bn", "'conv,,bn' is not a name prefix"),
    ],
)
def test_wrong_prefixes_are_refused(run, tmp_path, shades, prefix, message):
    status, told = start(shades, run, tmp_path / "new", "--freeze", prefix)
    assert status == 2 and message in told and not (tmp_path / "new").exists()
