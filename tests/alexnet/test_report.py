"""A run's report: the findings about a network, and the data of the page. test_report_in_browser.py tests its looks."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from alexnet import findings, report
from alexnet.training import evaluate
from alexnet.views import Views
from minidl import Tensor
from minidl import functional as F
from minidl.data import Compose

from ..helpers import reports


def pixels(uri):
    """The pixels of the picture in a data URI."""
    start = "data:image/png;base64,"
    assert uri.startswith(start)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri[len(start) :]))).convert("RGB"))


# --- findings ---------------------------------------------------------------------------------------------------------


def test_the_findings_of_a_network():
    net, loader = reports.network(3, 4), reports.loader()
    evaluation, _ = evaluate(net, loader)
    found = findings.find(net.train(), "abcd", loader, evaluation)
    assert found.confusion.sum() == 40 and (found.confusion.sum(axis=1) == 10).all()
    assert np.trace(found.confusion) == round(40 * evaluation.accuracy)
    assert found.kernels.shape == (20, 3, 3, 3)
    np.testing.assert_array_equal(found.image, loader.images[0])
    logits = net.eval()(Tensor(loader.transform(loader.images[:1], None, 0)))
    np.testing.assert_allclose(found.probabilities, F.softmax(logits).data[0], rtol=1e-5)
    assert found.label == 0 and found.probabilities.argmax() == evaluation.predictions[0]
    assert [(output.layer, output.kind, output.shape, output.values.shape) for output in found.outputs] == [
        ("conv1", "Conv2d", (20, 6, 6), (16, 6, 6)),
        ("relu1", "ReLU", (20, 6, 6), (16, 6, 6)),
        ("flatten", "Flatten", (720,), (720,)),
        ("drop", "Dropout", (720,), (720,)),
        ("fc2", "Linear", (4,), (4,)),
    ]
    np.testing.assert_array_equal(found.outputs[3].values, found.outputs[2].values)
    np.testing.assert_array_equal(found.outputs[1].values, np.maximum(found.outputs[0].values, 0))
    assert not any(vars(module).get("_forward_hooks") for module in net.modules())


@pytest.mark.parametrize("views", [1, 2])
def test_the_mistakes_have_the_highest_losses(views):
    """Also if the loader gives several views: all that the report shows is of the first one."""
    net, loader = reports.network(3, 4), reports.loader()
    loader.transform = Compose([Views(loader.images.shape[2], views), loader.transform])
    evaluation, _ = evaluate(net, loader)
    mistakes = findings.find(net, "abcd", loader, evaluation).mistakes
    wrong = [i for i in range(40) if evaluation.predictions[i] != loader.labels[i]]
    worst = sorted(wrong, key=lambda i: -evaluation.losses[i])
    assert len(wrong) > findings.MOST_MISTAKES and [mistake.place for mistake in mistakes] == worst[: findings.MOST_MISTAKES]
    for mistake in mistakes:
        np.testing.assert_array_equal(mistake.image, loader.images[mistake.place])
        assert (mistake.label, mistake.prediction) == (loader.labels[mistake.place], evaluation.predictions[mistake.place])
        assert mistake.loss == pytest.approx(-np.log(mistake.label_probability), rel=1e-4)
        assert mistake.probability > mistake.label_probability


# --- the page's data --------------------------------------------------------------------------------------------------


def written(folder, *arguments, **options):
    report.write(folder / "report.html", *arguments, **options)
    return reports.embedded(folder / "report.html")


def test_the_page_holds_the_data_of_the_run(tmp_path):
    (tmp_path / "my run").mkdir()
    metrics, statistics = reports.metrics(), reports.statistics()
    data = written(tmp_path / "my run", reports.config(), metrics, statistics, reports.found())
    assert (data["name"], data["state"], data["epochs"]) == ("my run", "finished", 3)
    assert data["metrics"] == metrics and data["statistics"] == statistics
    assert data["best"] == metrics[2] and data["seconds"] == sum(row["seconds"] for row in metrics)
    assert data["settings"].items() >= {"model": "cifar-bn", "lr": 0.02, "recipe": "digits"}.items()
    assert data["environment"].items() >= {"threads": 2, "dtype": "float32", "numpy": "2.4.6"}.items()
    assert not data["settings"].keys() & (data["environment"].keys() | {"versions"})
    assert [path.name for path in (tmp_path / "my run").iterdir()] == ["report.html"]


def test_the_page_holds_the_findings(tmp_path):
    found = reports.found()
    seen = written(tmp_path, reports.config(), reports.metrics(), [], found)["findings"]
    assert (seen["images"], seen["right"]) == (40, np.trace(found.confusion))
    assert seen["confusion"] == found.confusion.tolist()
    assert [pair["count"] for pair in seen["pairs"]] == sorted((pair["count"] for pair in seen["pairs"]), reverse=True)
    for pair in seen["pairs"]:
        assert pair["label"] != pair["prediction"] and pair["of"] == 10
        assert pair["count"] == found.confusion[pair["label"], pair["prediction"]]
    np.testing.assert_array_equal(pixels(seen["image"]), found.image.transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels(seen["mistakes"][0]["image"]), found.mistakes[0].image.transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels(seen["kernels"]["pictures"][3]), np.round(found.kernels[3] * 255))
    assert [chance for _, chance in seen["probabilities"]] == sorted(found.probabilities, reverse=True)[:5]
    assert [len(output["maps"]) for output in seen["outputs"]] == [16, 16, 1, 1, 1]
    assert seen["outputs"][0]["least"] == pytest.approx(found.outputs[0].values.min())
    sizes = [pixels(output["maps"][0]).shape[:2] for output in seen["outputs"]]
    assert sizes == [(6, 6), (6, 6), (3, 256), (3, 256), (1, 4)]


def test_the_colours_of_a_map():
    """Orange is positive and blue negative, brighter the larger; zero is black."""
    red, _, blue = pixels(report._map(np.array([[-4.0, -2.0, 0.0, 2.0, 4.0]]), 4.0, 64))[0].astype(int).T
    assert (blue[:2] > red[:2]).all() and (red[3:] > blue[3:]).all() and red[2] == blue[2] == 0
    assert blue[0] > blue[1] and red[4] > red[3]


@pytest.mark.parametrize(
    "epochs, of, running, state",
    [
        (3, 3, False, "finished"),
        (2, 3, True, "running"),
        (2, 3, False, "stopped"),
        (0, 3, True, "running"),
        (3, 3, True, "running"),
    ],
)
def test_the_page_holds_the_state_of_the_run(tmp_path, epochs, of, running, state):
    data = written(tmp_path, reports.config(of), reports.metrics(epochs), [], running=running, note="no images")
    assert data["state"] == state and data["note"] == "no images" and data["findings"] is None
    assert data["best"] == (reports.metrics(epochs)[-1] if epochs else None)


@pytest.mark.parametrize("channels, classes", [(1, 10), (3, 1000)])
def test_grey_images_and_many_classes_are_reported(tmp_path, channels, classes):
    found = reports.found(30, channels, [f"class {i}" for i in range(classes)])
    seen = written(tmp_path, reports.config(), reports.metrics(), [], found)["findings"]
    assert (seen["confusion"] is None) == (classes == 1000) and seen["pairs"]
    assert pixels(seen["image"]).shape == (8, 8, 3)
    assert (tmp_path / "report.html").stat().st_size < 6e6


def test_a_report_without_mistakes(tmp_path):
    seen = written(tmp_path, reports.config(), reports.metrics(), [], reports.found(right=True))["findings"]
    assert seen["mistakes"] == seen["pairs"] == [] and seen["right"] == seen["images"] == 40


def test_large_images_are_reduced(tmp_path):
    found = reports.found()
    found.image = np.zeros((3, 224, 200), np.uint8)
    found.outputs[0] = dataclasses.replace(found.outputs[0], values=np.zeros((2, 109, 109), np.float32))
    seen = written(tmp_path, reports.config(), reports.metrics(), [], found)["findings"]
    assert pixels(seen["image"]).shape == (128, 114, 3) and pixels(seen["outputs"][0]["maps"][0]).shape == (64, 64, 3)


def test_nan_and_infinity_become_null(tmp_path):
    """JSON has no NaN and infinity: they become null. NumPy's numbers are written like Python's."""
    rows = reports.metrics(1)
    rows[0] |= {"test_loss": np.float64(0.5), "train_loss": float("nan")}
    found = reports.found()
    found.outputs[0].values[0, 0, 0], found.outputs[1].values[0, 0, :2] = np.nan, (np.inf, -np.inf)
    data = written(tmp_path, reports.config(1), rows, [], found)
    assert data["metrics"][0]["test_loss"] == 0.5 and data["metrics"][0]["train_loss"] is None
    assert data["findings"]["outputs"][0]["least"] is data["findings"]["outputs"][1]["most"] is None


def test_a_long_run_is_thinned(tmp_path):
    metrics, statistics = reports.metrics(5001), reports.statistics(901)
    data = written(tmp_path, reports.config(6000), metrics, statistics)
    assert len(data["metrics"]) <= report.MOST_EPOCHS and len(data["statistics"]) <= report.MOST_SAMPLES
    assert data["metrics"][-1] == metrics[-1] and data["statistics"][-1] == statistics[-1]
    assert data["best"] == metrics[-1] and data["seconds"] == pytest.approx(sum(row["seconds"] for row in metrics))
    assert report.thinned([1, 2, 3], 3) == [1, 2, 3] and report.thinned([1, 2, 3, 4, 5], 3) == [1, 3, 5]
    assert report.thinned([], 3) == []


def test_hostile_names_do_not_become_markup(tmp_path):
    folder = tmp_path / reports.HOSTILE.replace("/", "∕")
    folder.mkdir()
    found = reports.found(names=[reports.HOSTILE, "<b>bold</b>", "a & b", "%{x}"])
    config = reports.config(data_dir=reports.HOSTILE)
    data = written(folder, config, reports.metrics(), reports.statistics(), found, note=reports.HOSTILE)
    assert data["findings"]["classes"] == [reports.HOSTILE, "<b>bold</b>", "a & b", "%{x}"]
    assert data["settings"]["data_dir"] == data["note"] == reports.HOSTILE and data["name"] == folder.name
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 3
    assert "window.broken = 1</script>" not in text and "<img src=x" not in text


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "folder" / "report.html").mkdir(parents=True)
    with pytest.raises(OSError, match="is not a regular file"):
        report.write(tmp_path / "folder" / "report.html", reports.config(), [], [])
