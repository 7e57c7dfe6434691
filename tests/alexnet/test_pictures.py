"""The pictures have the numbers, images and names that they were given, each in its place: read from Matplotlib's figures."""

from pathlib import Path

import numpy as np
import pytest

from alexnet import pictures

from ..helpers import reports

CLASSES = ["blue", "green", "a red with a name that is much too long"]
SHORT = ["blue", "green", "a red with a name that …"]
LABELS, PREDICTIONS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2]), np.array([0, 1, 1, 1, 2, 0, 2, 2, 2])
COUNTS = np.array([[1, 2, 0], [0, 1, 1], [1, 0, 3]])


@pytest.fixture
def figures(monkeypatch):
    """{name of the file: figure} of the pictures that are drawn."""
    drawn = {}
    monkeypatch.setattr(pictures, "_save", lambda figure, path: drawn.update({path.name: figure}))
    return drawn


def images(count, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, channels, 5, 4), np.uint8)


def shown(axes, layer=0):
    return np.asarray(axes.images[layer].get_array())


def drawn_of_a_run(model):
    assert pictures.draw(Path("a run"), reports.metrics(), LABELS, PREDICTIONS, CLASSES, model) == {}


def test_the_curves_are_those_of_the_metrics(figures):
    drawn_of_a_run(reports.network(3, 4))
    assert set(figures) == {"curves.png", "confusion.png", "filters.png"}
    rows = reports.metrics()
    for axes, what in zip(figures["curves.png"].axes, ("loss", "accuracy"), strict=True):
        assert (axes.get_title(), axes.get_xlabel()) == (what, "epoch")
        for line, part, style in zip(axes.lines, ("train", "test"), ("--", "-"), strict=True):
            values = [row[f"{part}_{what}"] for row in rows]
            assert list(line.get_xdata()) == [1, 2, 3] and list(line.get_ydata()) == values
            assert (line.get_label(), line.get_linestyle()) == (f"{part} ({values[-1]:.4f})", style)


def check_confusion(axes):
    """Rows are true classes, columns predicted ones."""
    np.testing.assert_array_equal(shown(axes), COUNTS / COUNTS.sum(axis=1, keepdims=True))
    assert axes.yaxis_inverted() and not axes.xaxis_inverted()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    for ticks, labels in ((axes.get_xticks(), axes.get_xticklabels()), (axes.get_yticks(), axes.get_yticklabels())):
        assert list(ticks) == [0, 1, 2] and [label.get_text() for label in labels] == SHORT
    assert axes.get_title() == "5 of 9 test images are classified correctly"
    texts = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert texts == {place: str(count) for place, count in np.ndenumerate(COUNTS) if count}


def test_the_confusion_matrix_has_the_true_classes_as_rows(figures):
    drawn_of_a_run(reports.network(3, 4))
    check_confusion(*figures["confusion.png"].axes)


@pytest.mark.parametrize("channels", [3, 1, 2])
def test_the_kernels_are_in_rows_each_on_its_own_scale(figures, channels):
    """In colour if they have three channels; if not, the first channel is shown."""
    network = reports.network(channels, 4)
    drawn_of_a_run(network)
    (axes,) = figures["filters.png"].axes
    weight = next(network.parameters()).data
    seen = shown(axes).reshape(15, 23, -1)  # 4 rows of 6 kernels of 3 x 3, with a line between them
    is_kernel = np.zeros((15, 23), bool)
    for k, kernel in enumerate(weight):
        place = slice(k // 6 * 4, k // 6 * 4 + 3), slice(k % 6 * 4, k % 6 * 4 + 3)
        expected = 0.5 + kernel / (2 * np.abs(kernel).max())
        np.testing.assert_allclose(seen[place], (expected if channels == 3 else expected[:1]).transpose(1, 2, 0), rtol=1e-6)
        is_kernel[place] = True
    assert (seen[~is_kernel] == 1).all() and axes.images[0].get_clim() == (0, 1)
    assert axes.get_title() == "the 20 kernels of the first convolution, 3 x 3"


def test_the_mistakes_are_below_the_confusion_matrix(figures):
    wrong = images(7)
    mistakes = [(image, CLASSES[i % 3], CLASSES[(i + 1) % 3], 0.9 - i / 10) for i, image in enumerate(wrong)]
    pictures.draw_evaluation(Path("a.png"), LABELS, PREDICTIONS, CLASSES, mistakes)
    upper, lower = figures["a.png"].subfigs
    check_confusion(*upper.axes)
    used = [axes for axes in lower.axes if axes.images]
    assert len(lower.axes) == 12
    assert [axes.get_title() for axes in used[:3]] == [
        "green (90%)\nis blue",
        "a red with a … (80%)\nis green",
        "blue (70%)\nis a red with a …",
    ]
    for axes, image in zip(used, wrong, strict=True):
        np.testing.assert_array_equal(shown(axes), image.transpose(1, 2, 0))


@pytest.mark.parametrize("count, places", [(1, 1), (6, 6), (8, 12)])
@pytest.mark.parametrize("channels", [3, 1])
def test_a_grid_has_every_image_above_its_answer(figures, channels, count, places):
    given = images(count, channels)
    pictures.draw_grid(Path("a.png"), [(image, f"class {i}", i / 10) for i, image in enumerate(given)])
    axes = figures["a.png"].axes
    assert len(axes) == places and not any(one.images for one in axes[count:])
    for i, (one, image) in enumerate(zip(axes, given, strict=False)):
        np.testing.assert_array_equal(shown(one), image.transpose(1, 2, 0).squeeze())
        assert one.get_xlabel() == f"class {i}\n{10 * i}%" and one.images[0].get_clim() == (0, 255)


def test_an_explanation_has_its_three_maps_beside_the_image(figures):
    (image,), (gradient, cam, fall) = images(1), np.random.default_rng(1).random((3, 5, 4))
    fall -= 0.75
    pictures.draw_explanation(Path("a.png"), image, "red, 90.0%", gradient, cam, fall)
    figure = figures["a.png"]
    assert figure.get_suptitle() == "red, 90.0%"
    axes = figure.axes[:4]
    assert [one.get_title() for one in axes] == ["image", "gradient", "Grad-CAM at the last convolution", "occlusion"]
    np.testing.assert_array_equal(shown(axes[0]), image.transpose(1, 2, 0))
    np.testing.assert_array_equal(shown(axes[1]), gradient)
    for one, expected in ((axes[2], cam), (axes[3], fall)):
        np.testing.assert_array_equal(shown(one), np.stack([image.mean(axis=0).astype(np.uint8)] * 3, axis=2))
        np.testing.assert_array_equal(shown(one, 1), expected)
    most = abs(fall).max()
    assert axes[2].images[1].get_clim() == (0, 1) and axes[3].images[1].get_clim() == (-most, most)
    assert figure.axes[4].get_ylabel() == "fall of the probability"
