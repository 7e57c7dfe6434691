"""python -m alexnet predict and evaluate: the classes of images, and the accuracy on a folder of images."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.font_manager import get_font_names
from PIL import Image
from safetensors.numpy import save_file

from alexnet import evaluation, models, pictures, prediction, weights
from alexnet.builders import build_loaders, load_dataset
from alexnet.commands import evaluate, export, predict
from alexnet.run import RunFolder
from alexnet.views import Views
from minidl import Tensor, no_grad
from minidl import functional as F
from minidl.errors import NotFiniteError, UserError
from minidl.nn import init
from minidl.parallel import ALONE, Communicators, mpi
from minidl.parallel.communicator import Communicator
from tests.helpers import experiments, folders
from tests.helpers.experiments import TINY

ROOT = Path(__file__).parents[2]
COLORS = ["blue", "green", "red"]


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    with experiments.tiny_network():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures of three colours, and a run that has learned to classify them."""
    place = tmp_path_factory.mktemp("place")
    data = folders.split(place / "data", dict.fromkeys(COLORS, 16), dict.fromkeys(COLORS, 5))
    options = ["--data", data, "--model", "tiny", "--batch-size", 8, "--epochs", 6, "--lr", 0.02]
    assert experiments.run(*options, "--out", place / "run") == (0, "")
    return place


def call(command, *arguments):
    """(exit status, standard output, messages)."""
    out, told = io.StringIO(), []
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr("alexnet.entry.tell", lambda line, name=None: told.append(line))
        status = command.main([str(argument) for argument in arguments])
    return status, out.getvalue(), told


def answers(*arguments):
    status, out, told = call(predict, *arguments, "--json")
    assert (status, told) == (0, [])
    return json.loads(out)


# --- predict ----------------------------------------------------------------------------------------------------------------


def test_answers_are_given_as_json(place):
    files = [str(place / f"data/val/{name}/{name}-0.png") for name in COLORS]
    found = answers(place / "run", *files)
    assert [answer["file"] for answer in found] == files
    for answer, name in zip(found, COLORS, strict=True):
        assert [set(one) for one in answer["predictions"]] == [{"class", "probability"}] * 3
        probabilities = [one["probability"] for one in answer["predictions"]]
        assert probabilities == sorted(probabilities, reverse=True) and np.isclose(sum(probabilities), 1)
        assert answer["predictions"][0]["class"] == name


def test_answers_are_given_in_words(place):
    """The numbers of --json, in percent."""
    files = [str(place / f"data/val/{name}/{name}-0.png") for name in COLORS]
    status, out, _ = call(predict, place / "run", *files, "--top", 2)
    expected = []
    for answer in answers(place / "run", *files, "--top", 2):
        expected.append(answer["file"])
        expected += [f"    {one['probability']:6.2%}  {one['class']}" for one in answer["predictions"]]
    assert status == 0 and out.splitlines() == expected and len(expected) == 9


def test_images_are_prepared_as_for_training(place):
    """The probabilities equal those of the run's own loader and network."""
    config = RunFolder.read(place / "run").config
    dataset = load_dataset(config)
    _, loader = build_loaders(config, dataset, 0, 1)
    loaded = weights.read(place / "run")
    with no_grad():
        expected = [F.softmax(loaded.network(Tensor(batch.images[: len(batch)]))).data for batch in loader.epoch(0)]
    files = [place / "data" / name for name in dataset.test.images.names]
    for answer, row in zip(answers(place / "run", *files), np.concatenate(expected), strict=True):
        own = {one["class"]: one["probability"] for one in answer["predictions"]}
        np.testing.assert_allclose([own[name] for name in COLORS], row, rtol=1e-5)
    dataset.close()


def test_files_folders_and_patterns_are_expanded(place, tmp_path, monkeypatch):
    shutil.copytree(place / "data/val", tmp_path / "some")
    (tmp_path / "some/notes.txt").touch()
    (tmp_path / "some/a[1].png").write_bytes((tmp_path / "some/red/red-0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    whole = [f"some/{name}/{name}-{i}.png" for name in COLORS for i in range(5)]
    assert prediction.find_files(["some"]) == ["some/a[1].png", *whole]
    assert prediction.find_files(["some/*/*-1.png", "some/a[1].png"]) == [*whole[1::5], "some/a[1].png"]
    assert prediction.find_files(["some/**/blue-*.png"]) == whole[:5]
    for name in ("some/*.gif", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="there are no images"):
            prediction.find_files([name])


def test_unreadable_files_are_reported_after_the_answers(place, tmp_path):
    good = place / "data/val/red/red-0.png"
    (tmp_path / "bad.png").write_text("no picture")
    status, out, told = call(predict, place / "run", tmp_path / "bad.png", good, tmp_path / "none.png", "--json")
    assert status == 2 and [answer["file"] for answer in json.loads(out)] == [str(good)]
    assert told[0].startswith(f"error: {tmp_path / 'bad.png'}: it is not an image")
    assert f"{tmp_path / 'none.png'}: No such" in told[1]


def test_the_batch_size_does_not_change_the_answers(place):
    folder = place / "data/val"
    one, other = answers(place / "run", folder, "--batch-size", 1), answers(place / "run", folder, "--batch-size", 100)
    for a, b in zip(one, other, strict=True):
        assert a["file"] == b["file"]
        np.testing.assert_allclose(
            [p["probability"] for p in a["predictions"]], [p["probability"] for p in b["predictions"]], rtol=1e-4, atol=1e-7
        )


def test_an_exported_file_answers_as_the_run_does(place, tmp_path):
    export.main([str(place / "run"), str(tmp_path / "a.safetensors")])
    folder = place / "data/val"
    for options in ([], ["--views", 10]):
        assert answers(tmp_path / "a.safetensors", folder, *options) == answers(place / "run", folder, *options)


def test_ten_views_are_averaged(place):
    """The probabilities of the four corners, the centre and their reflections, with training's padding, are averaged."""
    file = place / "data/val/red/red-0.png"
    loaded = weights.read(place / "run")
    image = prediction.read_image(file, loaded.preparation.resize)[None]
    assert (loaded.padding, loaded.padding_mode) == (1, "reflect")
    probabilities = []
    for top, left in [(1, 1), (0, 0), (0, 2), (2, 0), (2, 2)]:
        view = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect")[:, :, top : top + 12, left : left + 12]
        for seen in (view, view[..., ::-1]):
            x = (seen - np.reshape(loaded.preparation.mean, (3, 1, 1))) / np.reshape(loaded.preparation.std, (3, 1, 1))
            with no_grad():
                probabilities.append(F.softmax(loaded.network(Tensor(x.astype(np.float32)))).data[0])
    found = answers(place / "run", file, "--views", 10)[0]["predictions"]
    own = {one["class"]: one["probability"] for one in found}
    np.testing.assert_allclose([own[name] for name in COLORS], np.mean(probabilities, axis=0), rtol=1e-4)


def test_the_views_are_the_right_parts_of_the_image():
    image = np.arange(2 * 3 * 7 * 7).reshape(2, 3, 7, 7)
    np.testing.assert_array_equal(Views(4)(image, None, 0), image[:, :, 2:6, 2:6])
    ten = Views(4, 10)(image, None, 0).reshape(10, 2, 3, 4, 4)
    corners = [image[:, :, a : a + 4, b : b + 4] for a in (0, 3) for b in (0, 3)]
    five = [image[:, :, 2:6, 2:6], *corners]
    np.testing.assert_array_equal(ten, [*five, *(view[..., ::-1] for view in five)])
    assert len(Views(4, 10, reflection=False)(image, None, 0)) == 10
    two = Views(4, 2, padding=1)(image, None, 0).reshape(2, 2, 3, 4, 4)
    np.testing.assert_array_equal(two, [five[0], five[0][..., ::-1]])
    reflected = Views(7, 10, 1, True, "reflect")(image, None, 0)[2:4]
    np.testing.assert_array_equal(reflected[:, :, 0, 1:], image[:, :, 1, :6])
    assert (Views(7, 10, padding=1)(image, None, 0)[2:4, :, 0] == 0).all()


def test_class_names_can_be_read_from_a_file(place, tmp_path):
    (tmp_path / "names.txt").write_text("Blau\nGrün\n\nRot\n", encoding="utf-8")
    found = answers(place / "run", place / "data/val/green/green-0.png", "--classes", tmp_path / "names.txt")
    assert found[0]["predictions"][0]["class"] == "Grün"
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="it has 2 lines, but the network has 3 classes"):
        answers(place / "run", place / "data/val", "--classes", tmp_path / "names.txt")
    for name in ("none.txt", "latin.txt", "/dev/zero"):
        (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\xfa")
        with pytest.raises(UserError, match="--classes"):
            answers(place / "run", place / "data/val", "--classes", tmp_path / name)


def test_predict_works_on_grey_digits(tmp_path):
    assert experiments.run(*TINY, "--epochs", 1, "--out", tmp_path / "run") == (0, "")
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "a.png")
    assert len(answers(tmp_path / "run", tmp_path / "a.png", "--top", 99)[0]["predictions"]) == 10
    assert len(Views(16, 10, 2, False)(np.zeros((1, 1, 16, 16)), None, 0)) == 5
    answers(tmp_path / "run", tmp_path / "a.png", "--views", 10)


def test_nan_is_no_answer(place, tmp_path):
    """The weights are finite, but the outputs overflow: each command ends with one line, and no warning fails this test."""
    loaded = weights.read(place / "run")
    state = loaded.network.state_dict()
    last = list(state)[-2]
    state[last][...] = np.float32(3e38) * np.sign(state[last])
    weights.write(tmp_path / "a.safetensors", loaded)
    for options in ([], ["--json"], ["--explain", tmp_path / "why"]):
        with pytest.raises(NotFiniteError, match="the probabilities for .*red-0.png are NaN"):
            call(predict, tmp_path / "a.safetensors", place / "data/val/red/red-0.png", *options)
    with pytest.raises(NotFiniteError, match="the loss on test images is nan"):
        call(evaluate, tmp_path / "a.safetensors", "--data", place / "data")
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match="^the network's logits are NaN or infinite: its weights are damaged"):
        call(export, tmp_path / "a.safetensors", tmp_path / "a.onnx")


@pytest.mark.parametrize("images", [1, 3, 20])
def test_a_grid_of_answers_is_drawn(place, tmp_path, images):
    files = sorted((place / "data/train").rglob("*.png"))[:images]
    status, _, _ = call(predict, place / "run", *files, "--grid", tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert status == 0 and picture.format == "PNG" and min(picture.size) > 200


def test_dollars_at_the_end_of_a_line_begin_no_formula(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: labels.append(figure.axes[0].get_xlabel()))
    pictures.draw_grid(tmp_path / "grid.png", [(np.zeros((3, 8, 8), np.uint8), f"{'a' * 23}$b$", 1.0)])
    assert labels == [f"{'a' * 23}\\$\nb\\$\n100%"]


def test_names_without_a_font_cause_no_warnings(tmp_path):
    """A warning fails the test. No font has the second letter."""
    pictures.draw_grid(tmp_path / "grid.png", [(np.zeros((3, 8, 8), np.uint8), "한\U000fffff", 1.0)])
    assert (tmp_path / "grid.png").stat().st_size


@pytest.mark.skipif(not set(pictures.FONTS) & set(get_font_names()), reason="needs a font with Korean letters")
def test_korean_names_are_drawn_with_a_font_that_has_them(tmp_path):
    for name in "한글":
        pictures.draw_grid(tmp_path / name, [(np.zeros((3, 8, 8), np.uint8), name, 1.0)])
    with Image.open(tmp_path / "한") as one, Image.open(tmp_path / "글") as other:
        assert one.tobytes() != other.tobytes()


@pytest.mark.parametrize("backend", ["module://of_a.notebook", "nonsense"])
def test_pictures_need_no_back_end_of_matplotlib(tmp_path, backend):
    code = (
        "import pathlib, numpy; from alexnet import pictures; "
        "pictures.draw_grid(pathlib.Path('grid.png'), [(numpy.zeros((3, 8, 8), 'uint8'), 'red', 1.0)])"
    )
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "grid.png").stat().st_size


@pytest.mark.parametrize(
    "options, message",
    [
        (["--grid", "a.jpg"], "--grid a.jpg: give a name that ends with .png"),
        (["--top", "0"], "'0' is not an integer from 1"),
        (["--devices", "0,1"], "--devices: predict computes on one device"),
        (["--views", "5"], "invalid choice"),
        (["--grid", "/nowhere/a.png"], "cannot write"),
        (["--explain", "/dev/null/a"], "cannot write"),
    ],
)
def test_predict_refuses_wrong_options(place, options, message):
    with pytest.raises(UserError, match=message):
        predict.main([str(place / "run"), str(place / "data/val/red/red-0.png"), *options])


def test_explanations_are_drawn(place, tmp_path):
    files = [place / "data/val/red/red-0.png", place / "data/val/blue/blue-0.png"]
    status, _, _ = call(predict, place / "run", *files, "--explain", tmp_path / "new/why")
    assert status == 0
    assert sorted(file.name for file in (tmp_path / "new/why").iterdir()) == ["001-red-0.png", "002-blue-0.png"]
    with Image.open(tmp_path / "new/why/001-red-0.png") as picture:
        assert picture.size[0] > 800


def test_an_image_with_a_long_name_is_explained(place, tmp_path):
    image = shutil.copy(place / "data/val/red/red-0.png", tmp_path / f"{'한' * 83}.png")  # 253 bytes
    assert call(predict, place / "run", image, "--explain", tmp_path / "why")[0] == 0
    assert [file.name for file in (tmp_path / "why").iterdir()] == [f"001-{'한' * 50}.png"]


# --- evaluate ---------------------------------------------------------------------------------------------------------------


def evaluated(*arguments):
    status, out, told = call(evaluate, *arguments, "--json")
    assert (status, told) == (0, [])
    return json.loads(out)


def test_evaluate_repeats_the_last_line_of_the_run(place):
    last = experiments.metrics(place / "run")[-1]
    found = evaluated(place / "run")
    assert set(found) == {"images", "loss", "top1", "top5", "classes"} and found["images"] == 15
    np.testing.assert_allclose(found["loss"], last["test_loss"], rtol=1e-6)
    assert (found["top1"], found["top5"]) == (last["test_accuracy"], last["test_top5"])
    assert list(found["classes"]) == COLORS and all(of_class["images"] == 5 for of_class in found["classes"].values())
    assert sum(of_class["right"] for of_class in found["classes"].values()) == round(15 * found["top1"])
    _, out, _ = call(evaluate, place / "run")
    assert out.splitlines()[-1] == f"test loss: {last['test_loss']:.4f} - accuracy: {last['test_accuracy']:.4f}"


@pytest.mark.parametrize("options", [["--recipe", "alexnet-2012", "--image-size", 14], ["--validation", 0.25, "--limit-test", 6]])
def test_evaluate_uses_the_settings_of_the_run(place, tmp_path, options):
    settings = ["--data", place / "data", "--model", "tiny", "--batch-size", 8, "--epochs", 1]
    assert experiments.run(*settings, *options, "--out", tmp_path / "run") == (0, "")
    last, found = experiments.metrics(tmp_path / "run")[-1], evaluated(tmp_path / "run")
    np.testing.assert_allclose(found["loss"], last["test_loss"], rtol=1e-5)
    assert (found["top1"], found["top5"]) == (last["test_accuracy"], last["test_top5"])
    views = json.loads((tmp_path / "run/config.json").read_text())["test_views"]
    assert evaluated(tmp_path / "run", "--views", views)["top1"] == last["test_accuracy_views"]


def test_evaluate_works_on_digits(tmp_path):
    """What it prints in words are the numbers of --json."""
    assert experiments.run(*TINY, "--epochs", 1, "--out", tmp_path / "run") == (0, "")
    last, found = experiments.metrics(tmp_path / "run")[-1], evaluated(tmp_path / "run")
    np.testing.assert_allclose(found["loss"], last["test_loss"], rtol=1e-6)
    assert found["images"] == 20
    found = evaluated(tmp_path / "run", "--data", "digits")
    assert found["images"] == 360 and 0 < found["top1"] < found["top5"] < 1
    heading, *rows, result, closing = call(evaluate, tmp_path / "run", "--data", "digits")[1].splitlines()
    assert heading.split() == ["class", "images", "right"]
    counts = {name: {"images": int(images), "right": int(right)} for name, images, right in map(str.split, rows)}
    assert counts == found["classes"]
    assert result == f"360 images, top-1 {found['top1']:.4f}, top-5 {found['top5']:.4f}"
    assert closing == f"test loss: {found['loss']:.4f} - accuracy: {found['top1']:.4f}"


def test_evaluate_works_on_another_folder(place, tmp_path):
    """The classes are matched by name; the folder may have fewer of them."""
    folders.make(tmp_path / "other", {"red": 3, "blue": 2}, first_seed=77)
    found = evaluated(place / "run", "--data", tmp_path / "other")
    assert found["images"] == 5 and found["classes"] == {"blue": {"images": 2, "right": 2}, "red": {"images": 3, "right": 3}}
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    shutil.copytree(tmp_path / "other/red", swapped / "blue")
    shutil.copytree(tmp_path / "other/blue", swapped / "red")
    assert evaluated(place / "run", "--data", swapped)["top1"] == 0
    found = evaluated(place / "run", "--data", place / "data")
    assert found == evaluated(place / "run") and found == evaluated(place / "run", "--data", place / "data/val")
    export.main([str(place / "run"), str(tmp_path / "a.safetensors")])
    assert evaluated(tmp_path / "a.safetensors", "--data", place / "data", "--batch-size", 8) == found


def test_the_classes_of_torchvisions_weights_are_in_the_order_of_the_folders(tmp_path):
    with init.skipped():
        state = models.create("alexnet-torchvision", 3).state_dict()
    zeros = {name: np.zeros(array.shape, np.float32) for name, array in state.items()}
    zeros["classifier.6.bias"][1] = 5  # it answers "1" to every image
    save_file(zeros, tmp_path / "a.safetensors")
    folders.make(tmp_path / "data", {"blue": 1, "green": 2, "red": 1})
    found = evaluated(tmp_path / "a.safetensors", "--data", tmp_path / "data")
    assert found["classes"] == {name: {"images": n, "right": n * (n == 2)} for name, n in (("0", 1), ("1", 2), ("2", 1))}


def test_classes_that_were_trained_as_numbers_are_names(place, tmp_path):
    folders.make(tmp_path / "data", {"0": 4, "1": 4, "2": 4})
    options = ["--data", tmp_path / "data", "--validation", 3, "--model", "tiny", "--batch-size", 8, "--epochs", 1]
    assert experiments.run(*options, "--out", tmp_path / "run") == (0, "")
    with pytest.raises(UserError, match="the network has no class 'blue'; it has 0, 1, 2: rename the folder"):
        call(evaluate, tmp_path / "run", "--data", place / "data")


@pytest.mark.parametrize("change", ["channels", "draft"])
def test_evaluate_reads_the_images_of_a_folder_as_predict_does(place, tmp_path, change):
    """For a network for grey images, and for one whose JPEG images are not decoded at a lower resolution."""
    if change == "channels":
        names = ["3", "8"]
        assert experiments.run(*TINY, "--epochs", 1, "--out", tmp_path / "run") == (0, "")
    else:
        names = ["blue", "red"]
        shutil.copytree(place / "run", tmp_path / "run")
        settings = json.loads((tmp_path / "run/config.json").read_text())
        (tmp_path / "run/config.json").write_text(json.dumps(settings | {"draft": False}))
    for seed, name in enumerate(names):
        (tmp_path / "data" / name).mkdir(parents=True)
        picture = folders.picture(folders.COLORS["grey"], seed, (5, 4)).resize((1100, 800))
        picture.save(tmp_path / "data" / name / "a.jpg", quality=95)
    of_predict = answers(tmp_path / "run", tmp_path / "data", "--top", 10)
    right = [
        -np.log(next(p["probability"] for p in answer["predictions"] if p["class"] == name))
        for answer, name in zip(of_predict, names, strict=True)
    ]
    np.testing.assert_allclose(evaluated(tmp_path / "run", "--data", tmp_path / "data")["loss"], np.mean(right), rtol=1e-5)


def test_ten_crop_evaluates_ten_views(place):
    one, ten = evaluated(place / "run"), evaluated(place / "run", "--ten-crop")
    assert ten["images"] == 15 and ten["loss"] != one["loss"]
    of_predict = answers(place / "run", place / "data/val", "--views", 10)
    right = [-np.log(next(p["probability"] for p in a["predictions"] if p["class"] in a["file"])) for a in of_predict]
    np.testing.assert_allclose(ten["loss"], np.mean(right), rtol=1e-4)


def test_unreadable_files_are_left_out(place, tmp_path):
    shutil.copytree(place / "data/val", tmp_path / "val")
    (tmp_path / "val/red/red-0.png").write_bytes(b"x")
    status, out, told = call(evaluate, place / "run", "--data", tmp_path / "val", "--json")
    assert status == 0 and json.loads(out)["images"] == 14 and "red-0.png is left out" in told[0]


@pytest.mark.parametrize("given", [False, True])
def test_the_ranks_of_an_evaluation_share_the_cache(place, given):
    bytes_of = {}
    for size in (1, 3):
        job = evaluation.Job(place / "run", str(place / "data") if given else None, devices=range(size))
        ranks = Communicator()
        ranks.size = size
        with evaluation._images(job, weights.read(job.source), Communicators(ranks, ranks)) as split:
            bytes_of[size] = split.images[:].nbytes + split.images.readers.cache_bytes
    assert bytes_of[3] == bytes_of[1] // 3


def test_a_picture_of_an_evaluation_is_drawn(place, tmp_path):
    folders.make(tmp_path / "swapped", {"blue": 3, "red": 4})
    for file in (tmp_path / "swapped/blue").iterdir():
        folders.picture(folders.COLORS["green"], 5).save(file)
    status, _, _ = call(evaluate, place / "run", "--data", tmp_path / "swapped", "--out", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert status == 0 and picture.size[1] > picture.size[0] > 500


def test_the_mistakes_are_the_most_certain_ones(place, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "MOST_MISTAKES", 3)
    folders.make(tmp_path / "data", {"blue": 6, "red": 6})
    for seed, file in enumerate(sorted((tmp_path / "data").glob("*/*.png"))):
        folders.picture(folders.COLORS["green"], seed).save(file)
    job = evaluation.Job(place / "run", str(tmp_path / "data"))
    found = evaluation.evaluate(ALONE, lambda: False, job, weights.read(job.source))
    of_all = found.evaluation.probabilities[found.evaluation.predictions != found.labels]
    certain = [probability for *_, probability in found.mistakes]
    assert len(of_all) > 3 and certain == sorted(of_all, reverse=True)[:3]
    assert {(wrong, told) for _, wrong, told, _ in found.mistakes} <= {("blue", "green"), ("red", "green")}


@pytest.mark.parametrize(
    "options, message",
    [
        (["--data", "cifar"], "there is no such data set and no such folder|there are no images|cannot read"),
        (["--data", ""], "--data : there is no such data set and no such folder"),
        (["--data", "digits"], "the network has no class '0'; it has blue, green, red: rename the folder"),
        (["--out", "a.jpg"], "--out a.jpg: give a name that ends with .png"),
        (["--out", "/nowhere/a.png"], "cannot write /nowhere/a.png"),
    ],
)
def test_evaluate_refuses_wrong_options(place, options, message):
    with pytest.raises(UserError, match=message):
        call(evaluate, place / "run", *options)


@pytest.mark.parametrize("command, images", [(predict, ["data"]), (evaluate, [])])
def test_mpiexec_is_refused(place, monkeypatch, command, images):
    monkeypatch.setattr(mpi, "started", lambda: True)
    name = command.__name__.rpartition(".")[2]
    with pytest.raises(UserError, match=f"each process would do the whole work of {name}; run it without mpiexec"):
        call(command, place / "run", *(place / folder for folder in images))


@pytest.mark.parametrize("command, option, source", [(predict, "--grid", "data"), (evaluate, "--out", "")])
def test_a_picture_without_a_folder_is_refused_before_the_work(place, monkeypatch, command, option, source):
    monkeypatch.setattr(command, "launch" if command is evaluate else "prediction", None)
    with pytest.raises(UserError, match="cannot write /nowhere/a.png: there is no folder /nowhere; make it first"):
        call(command, place / "run", *([place / source] if source else []), option, "/nowhere/a.png")


def test_images_of_another_size_are_refused(tmp_path, place):
    folders.make(tmp_path / "data", {str(i): 2 for i in range(10)})
    options = ["--data", tmp_path / "data", "--validation", 10, "--model", "tiny", "--batch-size", 8, "--epochs", 1]
    assert experiments.run(*options, "--out", tmp_path / "other") == (0, "")
    with pytest.raises(UserError, match="--data digits: its images are 1 x 16 x 16, but those of the network 3 x 12 x 12"):
        call(evaluate, tmp_path / "other", "--data", "digits")


def test_a_weights_file_needs_data_to_be_evaluated_on(place, tmp_path):
    with pytest.raises(UserError, match="a.safetensors: there is no run and no file of that name"):
        call(evaluate, tmp_path / "a.safetensors")
    export.main([str(place / "run"), str(tmp_path / "a.safetensors")])
    with pytest.raises(UserError, match="has no test images of its own; give some with --data"):
        call(evaluate, tmp_path / "a.safetensors")


def test_moved_images_of_a_run_are_an_error(place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "moved")
    shutil.copytree(place / "run", tmp_path / "run")
    settings = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps(settings | {"data": "/nowhere"}))
    with pytest.raises(UserError, match="there is no such data set"):
        call(evaluate, tmp_path / "run")
    assert evaluated(tmp_path / "run", "--data-dir", tmp_path / "moved") == evaluated(place / "run")
