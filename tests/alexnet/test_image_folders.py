"""Training on folders of images: which images are found, what is refused, and that runs do not depend on how they are read."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from alexnet import datasets, image_folders, launch
from alexnet.builders import class_weights, found, load_dataset
from alexnet.commands import train
from alexnet.run import RunFolder
from minidl.errors import TrainingError, UserError
from tests.helpers import experiments, folders

COUNTS = {"red": 12, "green": 12, "blue": 12}
OPTIONS = ["--model", "tiny", "--batch-size", 8]


def run(data, *options):
    return experiments.run("--data", data, *OPTIONS, *options)


def config(*options):
    return train.config(train.parser().parse_args([str(option) for option in (*OPTIONS, *options)]))


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    with experiments.tiny_network():
        yield


@pytest.fixture
def data(tmp_path):
    return folders.split(tmp_path / "data", COUNTS, dict.fromkeys(COUNTS, 4))


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_the_test_folder_may_have_these_names(tmp_path, name):
    folders.split(tmp_path, COUNTS, COUNTS, ("train", name))
    dataset = datasets.load(str(tmp_path), side=12)
    assert len(dataset.train) == len(dataset.test) == 36 and dataset.test.images.names[0] == f"{name}/blue/blue-0.png"
    dataset.close()


def test_val_is_preferred_to_test(tmp_path):
    folders.split(tmp_path, COUNTS, dict.fromkeys(COUNTS, 2), ("train", "test"))
    folders.make(tmp_path / "val", dict.fromkeys(COUNTS, 3))
    assert len(datasets.load(str(tmp_path), side=12).test) == 9


def test_labels_follow_the_natural_order_of_the_classes(tmp_path):
    names = ["class 10", "class 2", "Class 3", "class 1"]
    folders.split(tmp_path, dict.fromkeys(names, 2), dict.fromkeys(reversed(names), 1))
    dataset = datasets.load(str(tmp_path), side=12)
    assert dataset.classes == ("class 1", "class 2", "Class 3", "class 10")
    assert [name.split("/")[1] for name in dataset.train.images.names[::2]] == list(dataset.classes)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and dataset.test.labels.tolist() == [0, 1, 2, 3]


def test_hidden_files_and_other_files_are_ignored(data):
    (data / "train" / ".ipynb_checkpoints").mkdir()
    shutil.copy(data / "train/red/red-0.png", data / "train/.ipynb_checkpoints/a.png")
    for name in (".hidden.png", "Thumbs.db", "notes.txt", "._red.png"):
        (data / "train/red" / name).write_bytes(b"x")
    (data / "train/labels.csv").write_text("x")
    (data / ".DS_Store").write_bytes(b"x")
    (data / "train/red/.cache").mkdir()
    shutil.copy(data / "train/red/red-0.png", data / "train/red/.cache/a.png")
    dataset = datasets.load(str(data), side=12)
    assert dataset.classes == ("blue", "green", "red") and len(dataset.train) == 36


def test_images_may_be_in_subfolders_of_a_class(data):
    (data / "train/red/2024/may").mkdir(parents=True)
    shutil.move(data / "train/red/red-0.png", data / "train/red/2024/may/red-0.png")
    dataset = datasets.load(str(data), side=12)
    assert len(dataset.train) == 36 and "train/red/2024/may/red-0.png" in dataset.train.images.names


def test_images_are_indexed_like_an_array(data):
    dataset = datasets.load(str(data), side=12)
    images = dataset.train.images
    whole = images[:]
    assert whole.shape == images.shape == (36, 3, 12, 12) and whole.dtype == np.uint8 and len(images) == 36
    np.testing.assert_array_equal(images[5], whole[5])
    np.testing.assert_array_equal(images[-2:], whole[-2:])
    np.testing.assert_array_equal(images[np.array([7, 1, 7])], whole[[7, 1, 7]])
    assert images[np.array([], int)].shape == (0, 3, 12, 12)
    np.testing.assert_array_equal(images, whole)
    assert len(list(images)) == 36
    dataset.close()


def test_a_class_may_be_named_train_or_test(tmp_path):
    """Also a class of tests: a folder without subfolders is a class."""
    folders.make(tmp_path, {"car": 4, "train": 3, "test": 2})
    dataset = datasets.load(str(tmp_path), side=12)
    assert dataset.classes == ("car", "test", "train") and np.bincount(dataset.train.labels).tolist() == [4, 2, 3]
    assert not len(dataset.test)


# --- what is refused ----------------------------------------------------------------------------------------------------


def missing_class(data):
    shutil.rmtree(data / "val/red")
    return "train has classes that val does not have: red"


def another_class(data):
    shutil.copytree(data / "val/red", data / "val/pink")
    return "val has classes that train does not have: pink"


def empty_class(data):
    shutil.rmtree(data / "train/red")
    (data / "train/red").mkdir()
    return "{}/train has no images of red; add some, or remove the folder"


def one_class(data):
    for part in ("train", "val"):
        for name in ("red", "blue"):
            shutil.rmtree(data / part / name)
    return "{}/train has only one class, green"


def no_images(data):
    for part in ("train", "val"):
        shutil.rmtree(data / part)
        (data / part / "red").mkdir(parents=True)
    return "there are no images in {}/train; it needs a folder for each class"


def no_train(data):
    shutil.rmtree(data / "train")
    return "there is val, but no train beside it"


def no_test(data):
    shutil.rmtree(data / "val")
    return "there is no folder val or test beside train; --validation 0.2 tests on a fifth of the images"


@pytest.mark.parametrize("damage", [missing_class, another_class, empty_class, one_class, no_images, no_train, no_test])
def test_unsuitable_folders_are_refused(data, damage, tmp_path):
    expected = damage(data).format(data)
    status, message = run(data, "--out", tmp_path / "out/run")
    assert status == 2 and expected in message and "\n" not in message, message
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_is_refused(tmp_path):
    status, message = run(tmp_path / "nowhere")
    assert status == 2 and "there is no such data set and no such folder" in message


# --- files that cannot be read ------------------------------------------------------------------------------------------


def test_a_few_unreadable_files_are_named_and_left_out(data, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(image_folders.entry, "tell", told.append)
    (data / "train/red/red-3.png").write_bytes(b"no picture")
    cut = (data / "val/blue/blue-1.png").read_bytes()
    (data / "val/blue/blue-1.png").write_bytes(cut[: len(cut) // 2])
    assert run(data, "--epochs", 1, "--out", tmp_path / "run") == (0, "")
    for name, line in zip(["train/red/red-3.png", "val/blue/blue-1.png"], told, strict=True):
        assert line.startswith(f"warning: {data}/{name} is left out: ")
    settings = RunFolder.read(tmp_path / "run").config
    assert settings.skipped == ["train/red/red-3.png", "val/blue/blue-1.png"]
    assert experiments.run("--resume", tmp_path / "run", "--epochs", 2) == (0, "")


def test_too_many_unreadable_files_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(image_folders.entry, "tell", lambda line: None)
    for i in range(11):
        (data / f"train/red/red-{i}.png").write_bytes(b"")
    status, message = run(data, "--out", tmp_path / "run")
    assert status == 2 and message.startswith("11 files cannot be read, and at most 10 are left out: train/red/red-0.png, ")
    assert "and 1 more" in message and not (tmp_path / "run").exists()


def test_a_class_without_a_readable_image_is_refused(data, monkeypatch):
    monkeypatch.setattr(image_folders.entry, "tell", lambda line: None)
    for file in (data / "val/red").iterdir():
        file.write_bytes(b"")
    status, message = run(data)
    assert status == 2 and "class 'red' has no test image that can be read" in message


def test_a_limited_run_replaces_unreadable_files(data, tmp_path, monkeypatch):
    monkeypatch.setattr(image_folders.entry, "tell", lambda line: None)
    for i in (0, 1, 2):
        (data / f"train/red/red-{i}.png").write_bytes(b"")
    asked = config("--data", data, "--limit-train", 30, "--limit-test", 6)
    dataset = load_dataset(asked)
    complete = found(asked, dataset)
    assert len(dataset.train.first(30, "")) == 30 and not set(complete.skipped) & set(dataset.train.images.names)
    dataset.train.first(30, "").images[:]
    dataset.close()


def test_an_image_removed_during_training_is_named(data, monkeypatch):
    monkeypatch.setattr(image_folders, "CACHE_BYTES", 0)
    asked = config("--data", data)
    dataset = load_dataset(asked)
    found(asked, dataset)
    (data / "train/blue/blue-0.png").unlink()
    with pytest.raises(TrainingError, match="blue-0.png can no longer be read .*; put it back, and --resume"):
        dataset.train.images[np.array([5, 0])]
    dataset.close()


# --- what a run records ------------------------------------------------------------------------------------------------


def test_config_json_records_what_was_found(data, tmp_path):
    assert run(data, "--epochs", 1, "--out", tmp_path / "run") == (0, "")
    settings = json.loads((tmp_path / "run/config.json").read_text())
    images = datasets.load(str(data), side=12).train.images[:].astype(float)
    assert settings["classes"] == ["blue", "green", "red"] and settings["data"] == str(data)
    assert (settings["channels"], settings["resize"], settings["image_size"]) == (3, 12, 12)
    np.testing.assert_allclose(settings["mean"], images.mean(axis=(0, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(settings["std"], images.std(axis=(0, 2, 3)), atol=1e-3)
    assert settings["crop_padding"] == 1  # 1 of 12 pixels, as 2 of 32


@pytest.mark.parametrize("model, size", [("cifar-lrn", 32), ("net-145", 224), ("small-lrn", 32), ("four-layers-tanh", 32)])
def test_a_network_has_images_of_its_size(data, model, size):
    assert config("--data", data, "--model", model).preparation.image_size == size


def test_the_2012_recipe_records_the_principal_components(data, tmp_path):
    """Each principal component is as long as the deviation along it: V^T V is the covariance."""
    assert run(data, "--epochs", 1, "--recipe", "alexnet-2012", "--image-size", 14, "--out", tmp_path / "run") == (0, "")
    settings = json.loads((tmp_path / "run/config.json").read_text())
    assert (settings["resize"], settings["image_size"], settings["std"]) == (16, 14, [1.0] * 3)
    pixels = datasets.load(str(data), side=16).train.images[:].transpose(1, 0, 2, 3).reshape(3, -1)
    vectors = np.array(settings["color_vectors"])
    np.testing.assert_allclose(vectors.T @ vectors, np.cov(pixels, bias=True), rtol=1e-3, atol=0.05)
    lengths = np.linalg.norm(vectors, axis=1)
    assert (np.diff(lengths) <= 0).all() and abs(vectors @ vectors.T - np.diag(lengths**2)).max() < 0.5


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_a_run_is_the_same_however_its_images_are_read(data, tmp_path, monkeypatch, cache):
    """By one reader or three, kept in memory or not."""
    options = ["--recipe", "default", "--image-size", 12, "--epochs", 2]
    assert run(data, *options, "--out", tmp_path / "one") == (0, "")
    monkeypatch.setattr(image_folders, "CACHE_BYTES", cache)
    monkeypatch.setattr(image_folders, "get_num_threads", lambda: 3)
    assert run(data, *options, "--out", tmp_path / "other") == (0, "")
    assert experiments.metrics(tmp_path / "other") == experiments.metrics(tmp_path / "one")
    assert experiments.weights(tmp_path / "other") == experiments.weights(tmp_path / "one")


def test_a_run_can_be_resumed_after_its_images_were_moved(data, tmp_path):
    options = ["--recipe", "deck"]
    assert run(data, *options, "--epochs", 2, "--out", tmp_path / "whole") == (0, "")
    assert run(data, *options, "--epochs", 1, "--out", tmp_path / "moved") == (0, "")
    data.rename(tmp_path / "elsewhere")
    status, message = experiments.run("--resume", tmp_path / "moved", "--epochs", 2)
    assert status == 2 and "there is no such data set and no such folder" in message
    assert experiments.run("--resume", tmp_path / "moved", "--epochs", 2, "--data-dir", tmp_path / "elsewhere") == (0, "")
    assert experiments.weights(tmp_path / "moved") == experiments.weights(tmp_path / "whole")


@pytest.mark.parametrize("key, value", [("image_size", 11), ("resize", 13), ("channels", 1), ("crop", 0.9)])
def test_image_sizes_changed_in_config_json_are_refused(data, tmp_path, key, value):
    assert run(data, "--epochs", 1, "--out", tmp_path / "run") == (0, "")
    settings = json.loads((tmp_path / "run/config.json").read_text()) | {key: value}
    if key == "channels":
        settings |= {"mean": [1.0], "std": [1.0]}
    (tmp_path / "run/config.json").write_text(json.dumps(settings))
    before = experiments.content(tmp_path / "run")
    status, message = experiments.run("--resume", tmp_path / "run", "--epochs", 2)
    assert status == 2 and "config.json has other image sizes than" in message
    assert experiments.content(tmp_path / "run") == before


@pytest.mark.parametrize("change", ["more", "fewer", "another", "renamed"])
def test_a_run_is_not_resumed_with_other_images(data, tmp_path, change):
    assert run(data, "--epochs", 1, "--out", tmp_path / "run") == (0, "")
    file = data / "train/red/red-0.png"
    if change == "more":
        shutil.copy(file, data / "train/red/new.png")
    elif change == "fewer":
        file.unlink()
    elif change == "another":
        folders.picture((1, 2, 3), 5, (31, 31)).save(file)
    else:
        file.rename(data / "train/red/red-00.png")
    before = experiments.content(tmp_path / "run")
    status, message = experiments.run("--resume", tmp_path / "run", "--epochs", 2)
    assert status == 2 and "its files or classes are not those that the run began with" in message
    assert experiments.content(tmp_path / "run") == before


# --- held-out images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["with train", "without"])
def test_a_share_of_each_class_is_held_out(tmp_path, layout):
    counts = {"red": 20, "green": 10, "blue": 5}
    folders.make(tmp_path / "data" / "train" if layout == "with train" else tmp_path / "data", counts)
    parts = {}
    for seed in (0, 0, 1):
        dataset = load_dataset(config("--data", tmp_path / "data", "--validation", 0.2, "--seed", seed))
        assert np.bincount(dataset.test.labels).tolist() == [1, 2, 4]
        assert np.bincount(dataset.train.labels).tolist() == [4, 8, 16]
        names = dataset.train.images.names, dataset.test.images.names
        assert not set(names[0]) & set(names[1]) and parts.setdefault(seed, names) == names
    assert parts[0] != parts[1]


def test_a_number_of_images_is_held_out_class_balanced(tmp_path):
    folders.make(tmp_path / "data", {"red": 20, "green": 10, "blue": 5})
    dataset = load_dataset(config("--data", tmp_path / "data", "--validation", 9))
    assert np.bincount(dataset.test.labels).tolist() == [3, 3, 3] and len(dataset.train) == 26


def test_images_of_an_array_can_be_held_out():
    dataset = load_dataset(config("--data", "digits", "--validation", 100))
    whole = datasets.digits()
    assert len(dataset.train) == 1337 and np.bincount(dataset.test.labels).tolist() == [10] * 10
    everything = np.concatenate([dataset.train.images, dataset.test.images])
    assert sorted(map(bytes, everything)) == sorted(map(bytes, whole.train.images))


@pytest.mark.parametrize("validation", [34, 35, 0.99, 36])
def test_holding_out_too_many_images_is_refused(tmp_path, validation):
    folders.make(tmp_path / "data", COUNTS)
    status, message = run(tmp_path / "data", "--validation", validation)
    assert status == 2 and f"--validation {validation} holds out all or none of class" in message


@pytest.mark.parametrize("validation", ["0", "1.5", "-1", "x", "nan", "", "0.0", "1e3", "1000001"])
def test_only_a_number_or_a_share_can_be_held_out(validation):
    with pytest.raises(UserError, match="is not a share such as 0.2, nor an integer"):
        train.parser().parse_args(["--validation", validation])


# --- classes of uneven size ---------------------------------------------------------------------------------------------


def test_balance_gives_all_classes_the_same_weight():
    asked = dataclasses.replace(config("--balance"), classes=["a", "b", "c"])
    labels = np.repeat([0, 1, 2], [10, 5, 1])
    weights = class_weights(asked, labels)
    np.testing.assert_allclose(weights * [10, 5, 1], [16 / 3] * 3, rtol=1e-6)
    assert np.isclose(weights[labels].mean(), 1)
    assert class_weights(dataclasses.replace(asked, balance=False), labels) is None


def test_balance_helps_the_rare_class(tmp_path):
    """On images without a pattern: without --balance the network prefers the common class, with it both are equal."""
    folders.make(tmp_path / "data/train", {"one": 60, "two": 12})
    folders.make(tmp_path / "data/val", {"one": 12, "two": 12})
    for file in (tmp_path / "data").rglob("*.png"):
        folders.picture((120, 120, 120), hash_of(file)).save(file)
    losses = {}
    for options in ([], ["--balance"]):
        out = tmp_path / f"run{len(options)}"
        assert run(tmp_path / "data", "--recipe", "deck", "--epochs", 8, *options, "--out", out) == (0, "")
        losses[bool(options)] = min(row["test_loss"] for row in experiments.metrics(out))
    assert losses[True] < losses[False] - 0.05


def hash_of(file):
    return sum(file.name.encode()) + 1000 * len(file.parent.name)


@pytest.mark.parametrize("counts, told", [([12, 20], "12 of 'red' to 20 of 'green'"), ([12, 18], "")])
def test_uneven_class_sizes_are_reported(tmp_path, monkeypatch, counts, told):
    lines = []
    monkeypatch.setattr(launch.entry, "tell", lines.append)
    sizes = dict(zip(("red", "green"), counts, strict=True))
    data = folders.split(tmp_path / "data", sizes, sizes)
    assert run(data, "--epochs", 1, "--out", tmp_path / "a") == (0, "")
    assert run(data, "--epochs", 1, "--balance", "--out", tmp_path / "b") == (0, "")
    assert experiments.run("--resume", tmp_path / "a", "--epochs", 2) == (0, "")
    about_sizes = [line for line in lines if "unbalanced" in line]
    assert len(about_sizes) == bool(told) and all(told in line for line in about_sizes)


def test_readers_end_when_the_images_are_no_longer_used(data):
    dataset = datasets.load(str(data), side=12)
    dataset.train.images[:3]
    processes = list(dataset.train.images.readers.workers._processes)
    assert processes and all(process.is_alive() for process in processes)
    del dataset
    assert not any(process.is_alive() for process in processes)
