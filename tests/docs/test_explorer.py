"""The explorer: its numbers are minidl's, its pages are the present ones, and it answers to mouse, keyboard and touch."""

import contextlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
import minidl.functional as F
from minidl import Tensor, nn
from minidl.optim import SGD

from ..helpers.browser import FAINT, SIZES

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"en": DOCS / "explorer/pages/explorer.html", "ko": DOCS / "explorer/pages/ko/explorer.html"}
LAYERS = "conv1 relu1 lrn1 pool1 conv2 bn2 relu2 flatten fc3 relu3 drop3 fc4 softmax".split()
LAST = 2 * len(LAYERS) - 1  # step of the walk


@pytest.fixture(scope="module")
def build():
    sys.path.insert(0, str(DOCS))
    from explorer import build

    yield build
    sys.path.remove(str(DOCS))


# --- what the pages are made of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", PAGES)
def test_a_page_is_the_present_one(build, language):
    assert build.page(language) == PAGES[language].read_text(encoding="utf-8")


def test_the_network_has_learned(build):
    net = build.network.create()
    net.load_state_dict(minidl.load(build.network.WEIGHTS))
    assert build.network.accuracy(net) > 0.95


def test_its_training_learns(build, monkeypatch):
    """With fewer epochs than it had."""
    monkeypatch.setattr(build.network, "EPOCHS", 10)
    assert build.network.accuracy(build.network.train()) > 0.6


def test_both_languages_say_the_same_things(build):
    """The same keys, and in each text the same numbers to be filled in."""

    def shape(words):
        if isinstance(words, dict):
            return {key: shape(value) for key, value in words.items()}
        return sorted(part.partition("}")[0] for part in words.split("{")[1:])

    english, korean = (json.loads((build.HERE / f"words_{language}.json").read_text(encoding="utf-8")) for language in PAGES)
    assert shape(english) == shape(korean)
    assert list(english["layers"]) == LAYERS
    same = [key for key, value in english.items() if isinstance(value, str) and korean[key] == value]
    assert same == ["home"]


def test_no_line_is_long(build):
    for name in (*build.SCRIPTS, "style.css", "page.html"):
        assert max(map(len, (build.HERE / name).read_text(encoding="utf-8").splitlines())) <= 130, name


# --- its arithmetic ---------------------------------------------------------------------------------------------------


class Library:
    """The same batch through minidl, in float64."""

    def __init__(self, build, weights, mask):
        data = build.data()
        self.net, self.mask, self.labels = build.network.create().train(), mask, np.array(data["labels"])
        for name, parameter in self.net.named_parameters():
            parameter.data[...] = self.unpacked(data["weights"][weights][name])
        self.images = self.unpacked(data["images"])

    def unpacked(self, packed):
        return np.array(packed["values"]).reshape(packed["shape"])

    def numbers(self):
        """As the page tells them."""
        values = [Tensor(self.images, requires_grad=True)]
        for name, layer in self.net.named_modules():
            if name:
                x = values[-1]
                dropped = isinstance(layer, nn.Dropout)
                values.append(x * Tensor(self.mask) if dropped else layer(x))
                values[-1].retain_grad()
        for parameter in self.net.parameters():
            parameter.grad = None
        loss = F.cross_entropy(values[-1], self.labels)
        loss.backward()
        return {
            "loss": loss.item(),
            "probabilities": F.softmax(values[-1]).data,
            "values": [value.data for value in values],
            "gradients": [value.grad for value in values],
            "grads": {name: parameter.grad for name, parameter in self.net.named_parameters()},
            "params": {name: parameter.data for name, parameter in self.net.named_parameters()},
        }

    def compare(self, page):
        def same(ours, theirs, what):
            if isinstance(ours, dict):
                assert ours.keys() == theirs.keys()
                for key in ours:
                    same(ours[key], theirs[key], f"{what} {key}")
            elif isinstance(ours, list):
                for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                    same(one, other, f"{what} {i}")
            else:
                np.testing.assert_allclose(np.ravel(theirs), np.ravel(ours), rtol=1e-9, atol=1e-12, err_msg=what)

        same(self.numbers(), page.evaluate("explorer.numbers()"), "numbers:")


@pytest.fixture
def library(build):
    """library(weights, mask): see Library; mask None: no dropout."""

    def library(weights="trained", dropping=True):
        return Library(build, weights, build.mask() / 0.5 if dropping else np.ones((10, 16)))

    return library


@pytest.mark.parametrize("dropping", [True, False])
@pytest.mark.parametrize("weights", ["trained", "untrained"])
def test_its_numbers_are_the_librarys(show, library, weights, dropping):
    with show(PAGES["en"]) as page:
        page.select_option("#weights", weights)
        page.locator("#dropping").set_checked(dropping)
        library(weights, dropping).compare(page)


def test_another_mask(show, library):
    with show(PAGES["en"]) as page:
        ours = library()
        page.click("#redraw")
        ours.mask = np.array(page.evaluate("[...explorer.state.mask]")).reshape(10, 16) / 0.5
        ours.compare(page)


def test_steps_of_training(show, library):
    with show(PAGES["en"]) as page:
        ours = library()
        optimizer = SGD(ours.net.parameters(), 10**-0.7)
        page.locator("#rate").fill("-0.7")
        before = page.locator("#loss").inner_text()
        for _ in range(3):
            page.click("#train")
            ours.numbers()
            optimizer.step()
        ours.compare(page)
        assert float(page.locator("#loss").inner_text()) < float(before)
        assert len(page.locator("#losses polyline").get_attribute("points").split()) == 4
        page.locator("#dropping").uncheck()
        page.click("#reset")
        library().compare(page)
        assert page.locator("#dropping").is_checked() and page.locator("#rate").input_value() == "-1"


def test_reset_restores_the_images_and_lets_go(show):
    with show(PAGES["en"]) as page:
        thumbnail = "document.querySelectorAll('#images canvas')[2].toDataURL()"
        page.locator("#images input").nth(2).check(force=True)
        before = page.evaluate(thumbnail)
        held(page, "x", 2 * 64)
        page.locator("#change-value").fill("1")
        assert page.evaluate(thumbnail) != before
        page.locator("#images input").nth(0).check(force=True)
        held(page, "x", 0)
        page.click("#reset")
        assert page.evaluate(thumbnail) == before and not page.locator("#change").is_visible()


def test_a_mask_is_drawn_only_where_there_is_dropout(show):
    with show(PAGES["en"]) as page:
        assert page.locator("#redraw").is_enabled()
        page.locator("#dropping").uncheck()
        assert page.locator("#redraw").is_disabled()


@pytest.mark.parametrize("dropping", [True, False])
def test_most_images_are_typical_and_one_is_mistaken(show, dropping):
    with show(PAGES["en"]) as page:
        page.locator("#dropping").set_checked(dropping)
        right = []
        for n in range(10):
            page.locator("#images input").nth(n).check(force=True)
            right.append(": right" in page.locator("#answer").inner_text())
        assert right.count(False) == 1 if not dropping else right.count(True) >= 7


def test_a_rate_that_is_too_large_is_told_and_reset_helps(show):
    with show(PAGES["en"]) as page:
        page.evaluate("explorer.state.params['fc4.weight'].fill(NaN)")
        page.click("#train")
        assert "learning rate is too large" in page.locator("#answer").inner_text()
        walk_to(page, "softmax")
        cell = page.locator("[data-panel=x] rect.cell").first
        assert "128 128 128" in cell.get_attribute("fill") and page.locator("[data-panel=x] .number").first.inner_html() == "NaN"
        page.click("#reset")
        assert "learning rate" not in page.locator("#answer").inner_text()


def held(page, panel, place):
    """Click on an element of a panel, and hold it."""
    page.locator(f"[data-panel={panel}] rect.cell[data-place='{place}']").click()


@pytest.mark.parametrize(
    "panel, place, value, name", [("x", 20, 0.75, None), ("w", 4, -1.0, "conv1.weight"), ("b", 2, 0.5, "conv1.bias")]
)
def test_a_pixel_a_weight_and_a_bias_can_be_changed(show, library, panel, place, value, name):
    with show(PAGES["en"]) as page:
        ours = library()
        before = page.locator("#loss").inner_text()
        held(page, panel, place)
        page.locator("#change-value").fill(str(value))
        changed = page.evaluate("explorer.numbers()")
        now = (changed["params"][name] if name else changed["values"][0])[place]
        assert now == pytest.approx(value, abs=0.05)
        (dict(ours.net.named_parameters())[name].data if name else ours.images).reshape(-1)[place] = now
        ours.compare(page)
        assert page.locator("#loss").inner_text() != before


def test_a_change_is_held_to_what_the_gradient_predicted(show):
    with show(PAGES["en"]) as page:
        held(page, "w", 4)
        before = page.evaluate("explorer.numbers()")
        value = before["params"]["conv1.weight"][4]
        page.locator("#change-value").evaluate("(slider, value) => (slider.step = 'any', slider.value = value)", value + 1e-3)
        page.locator("#change-value").dispatch_event("input")
        text = page.locator("#prediction").inner_html().replace("−", "-").replace("·10<sup>", "e").replace("</sup>", "")
        delta, predicted, real = (float(part) for part in re.findall(r"[+-]\d[\d.]*\d(?:e-?\d+)?", text))
        assert delta == pytest.approx(1e-3, rel=5e-3)
        assert predicted == pytest.approx(1e-3 * before["grads"]["conv1.weight"][4], rel=5e-3)
        assert real == pytest.approx(page.evaluate("explorer.numbers().loss") - before["loss"], rel=5e-3)
        assert real == pytest.approx(predicted, rel=0.05)


def test_the_curve_of_the_loss_has_one_point_for_each_edit(show):
    with show(PAGES["en"]) as page:

        def points():
            return len(page.locator("#losses polyline").get_attribute("points").split())

        held(page, "w", 4)
        for value in ("-1", "0", "1"):
            page.locator("#change-value").fill(value)
        assert points() == 2
        held(page, "w", 5)
        page.locator("#change-value").fill("1")
        assert points() == 3
        page.click("#train")
        assert points() == 4


# --- what is seen -----------------------------------------------------------------------------------------------------


def walk_to(page, layer, back=False):
    place = LAST - LAYERS.index(layer) if back else LAYERS.index(layer)
    page.locator("#place").fill(str(place))


@contextlib.contextmanager
def at_layer(show, layer, back):
    """The English page with the fourth image, at a layer."""
    with show(PAGES["en"]) as page:
        page.locator("#images input").nth(3).check(force=True)
        walk_to(page, layer, back)
        yield page


@pytest.mark.parametrize("language", PAGES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_walk_forward_and_back(show, language, size, scheme):
    with show(PAGES[language], size, scheme) as page:
        assert page.locator("html").get_attribute("lang") == language
        assert [card.get_attribute("data-layer") for card in page.locator("[data-layer]").all()] == ["image", *LAYERS]
        seen = []
        while True:
            seen.append(page.locator("#layer-name").inner_text())
            assert page.locator("[aria-current]").get_attribute("data-layer") == seen[-1].partition(",")[0]
            twice = len(seen) - 1 == LAST - LAYERS.index("pool1")  # in pooling's backward: ∂L/∂x and x
            assert page.locator("#explanation b").count() and page.locator(".frames .focus").count() == 1 + twice
            assert "undefined" not in page.locator("#layer").inner_text() and "NaN" not in page.locator("#layer").inner_text()
            assert page.evaluate(FAINT) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
            if page.locator("#next").is_disabled():
                break
            page.click("#next")
        assert [name.partition(",")[0] for name in seen] == LAYERS + LAYERS[::-1]
        assert len(set(seen)) == len(seen)
        page.click("#back")
        assert page.locator("#layer-name").inner_text() == seen[-2]


def test_a_card_leads_to_its_layer(show):
    with show(PAGES["en"]) as page:
        page.click("[data-layer=lrn1]")
        assert page.locator("#layer-name").inner_text() == "lrn1, forward"
        walk_to(page, "softmax", back=True)
        page.click("[data-layer=pool1]")
        assert page.locator("#layer-name").inner_text() == "pool1, backward"
        before = "e => getComputedStyle(e, '::before').content"
        assert "∂" in page.locator("[data-layer=conv2] .name").evaluate(before)
        assert "∂" not in page.locator("[data-layer=relu1] .name").evaluate(before)


@pytest.mark.parametrize("language, forward, backward", [("en", "forward", "backward"), ("ko", "순전파", "역전파")])
def test_a_layers_heading_leads_to_its_other_direction(show, language, forward, backward):
    with show(PAGES[language], "narrow") as page:
        heading, turn = page.locator("#layer-name"), page.locator("#turn")
        for layer in ("conv1", "pool1", "softmax"):
            walk_to(page, layer, back=True)
            assert forward in turn.inner_text().lower()
            turn.press("Enter")
            assert heading.inner_text() == f"{layer}, {forward}" and backward in turn.inner_text().lower()
            page.keyboard.press("Enter")  # it keeps the keyboard
            assert heading.inner_text() == f"{layer}, {backward}"
            boxes = heading.bounding_box(), turn.bounding_box()
            assert boxes[1]["y"] < boxes[0]["y"] + boxes[0]["height"]  # beside it


def told(element):
    """The number that an element has as its text."""
    return float(element.inner_html().replace("−", "-").replace("·10<sup>", "e").replace("</sup>", ""))


def total(page):
    """The number that the explanation ends in."""
    return told(page.locator("#explanation .filled b").last)


def arithmetic(text):
    """(result, tolerance) of the formula with numbers that stands before the equals sign of an explanation's HTML.

    tolerance: how much the result may be wrong because each number in it is rounded to three digits.
    """
    text = text.partition(" = ")[0].replace("−", "-")
    for pattern, new in (
        (r"·10<sup>(.*?)</sup>", r"e\1"),
        (r"<sup>(.*?)</sup>", r"**\1"),
        ("·", "*"),
        (r"\(\d+ smaller terms?: ", "("),
    ):
        text = re.sub(pattern, new, text)
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", text)  # every second one is a number

    def result(factors):
        numbers = [f"{factor * float(part)!r}" for factor, part in zip(factors, parts[1::2], strict=True)]
        return eval("".join(a + b for a, b in zip(parts[::2], [*numbers, ""], strict=True)), {"max": max})

    count = len(parts) // 2
    exact = result([1] * count)
    return exact, 1e-9 + sum(abs(result([1.005 if k == i else 1 for k in range(count)]) - exact) for i in range(count))


# For each element that the layer computes: [panel, place, terms]; for a parameter the terms of all images. As JSON.
TERMS = """() => {
  const own = explorer.state.image;
  const seen = [];
  for (const of of ["x", "w", "b", "y"])
    for (const { place } of panels[of]?.layout ?? []) {
      if (termsOf(panels[of], place) === null) continue;
      const isParameter = of === "w" || of === "b";
      const terms = isParameter ? labels.flatMap((_, n) => ((explorer.state.image = n), termsOf(panels[of], place)))
        : termsOf(panels[of], place);
      seen.push([of, place, terms]);
    }
  explorer.state.image = own;
  return JSON.stringify(seen);
}"""


def computed(kind, back, terms):
    """An element from the factors of its terms, by the formula that the page shows."""
    used = [term for term in terms if not term.get("cut")]
    first = dict(map(tuple, terms[0]["factors"])) if terms else {}
    match kind, back:
        case "relu", False:
            return max(first["x"], 0)
        case "lrn", False:
            return first["x"] / first["s"] ** 0.75
        case "lrn", True:
            others = [dict(map(tuple, term["factors"])) for term in terms if term.get("neighbour")]
            neighbours = sum(one["dyj"] * one["xj"] / one["sj"] ** 1.75 for one in others)
            return first["dy"] / first["s"] ** 0.75 - 0.5 * others[0]["x"] * neighbours
        case "pool", False:
            return max(term["factors"][0][1] for term in terms)
        case "bn", False:
            return first["gamma"] * (first["x"] - first["mean"]) / first["std"] + first["beta"]
        case "bn", True:
            mean, part = terms[1]["factors"][0][1], dict(map(tuple, terms[2]["factors"]))
            return first["gamma"] / first["std"] * (first["dy"] - mean - part["xhat"] * part["weighted"])
        case "drop", _:
            return sum(term["factors"][0][1] / (1 - term["factors"][1][1]) for term in used)
        case _:
            return sum(np.prod([value for _, value in term["factors"]]) for term in used)


@pytest.mark.parametrize("layer", LAYERS[:-1])
@pytest.mark.parametrize("back", [False, True])
def test_the_terms_of_every_element_give_its_number(show, layer, back):
    """So does the formula with their factors. The factors are the numbers of the framed elements."""
    with at_layer(show, layer, back) as page:
        numbers, seen = page.evaluate("explorer.numbers()"), json.loads(page.evaluate(TERMS))
    place, kind = LAYERS.index(layer), layer.rstrip("123456")
    weight, bias = (f"{layer}.{parameter}" for parameter in ("weight", "bias"))
    expected = {
        "x": numbers["gradients"][place],
        "y": numbers["values"][place + 1],
        "w": numbers["grads"].get(weight),
        "b": numbers["grads"].get(bias),
    }
    sources = {
        "x": ("x", numbers["values"][place]),
        "dy": ("y", numbers["gradients"][place + 1]),
        "W": ("w", numbers["params"].get(weight)),
        "b": ("b", numbers["params"].get(bias)),
    }
    assert {of for of, *_ in seen} == ({"x", "w", "b"} if back and weight in numbers["params"] else {"x"} if back else {"y"})
    for of, p, terms in seen:
        close = pytest.approx(expected[of][p], rel=1e-9, abs=1e-12)
        assert sum(term["value"] for term in terms if not term.get("cut")) == close, (of, p)
        assert computed("product" if of in "wb" else kind, back, terms) == close, (of, p)
        for term in terms:
            for letter, value in term["factors"]:
                source, values = sources.get(letter, ("", None))
                framed = [values[one["place"]] for one in term["from"] if one["of"] == source]
                assert not framed or value in framed, (of, p, letter)


def test_an_output_shows_its_window_kernel_and_sum(show):
    with show(PAGES["en"]) as page:
        assert "∂" not in page.locator("#explanation").inner_text()
        page.locator("[data-panel=y] rect.cell[data-place='27']").hover()  # channel 0, row 3, column 3
        assert page.locator("[data-panel=x] .frames .from").count() == 9
        assert page.locator("[data-panel=w] .frames .from").count() == 9
        assert total(page) == pytest.approx(page.evaluate("explorer.numbers().values[1][27]"), rel=5e-3)
        page.locator("[data-panel=x] rect.cell[data-place='0']").hover()
        assert page.locator("[data-panel=y] .frames .from").count() == 6 * 4  # a corner is in four windows of each kernel


def test_where_windows_overlap_gradients_add_up(show):
    with show(PAGES["en"]) as page:
        walk_to(page, "pool1", back=True)
        places = page.evaluate(
            """() => {
              const { gradients } = explorer.numbers();
              const kept = [...document.querySelectorAll("[data-panel=x] rect.cell")].map((cell) => Number(cell.dataset.place));
              return kept.filter((place) => gradients[3][place] !== 0);
            }"""
        )
        windows = {}
        for place in places:
            page.locator(f"[data-panel=x] rect.cell[data-place='{place}']").hover()
            windows[place] = page.locator("[data-panel=y] .frames .from").count()
            assert total(page) == pytest.approx(page.evaluate(f"explorer.numbers().gradients[3][{place}]"), rel=5e-3, abs=1e-9)
            assert page.locator("[data-panel=x] .window:not(.faint)").count() == windows[place]
        assert max(windows.values()) > 1, "no value is the maximum of several windows"


def test_poolings_backward_shows_which_value_was_the_maximum(show):
    """Beside the gradients, x of the channel of the chosen element, in numbers."""
    with show(PAGES["en"]) as page:
        numbers = page.evaluate("explorer.numbers()")
        x = numbers["values"][3]
        walk_to(page, "pool1", back=True)
        for channel in (4, 1):
            page.locator(f"[data-panel=y] rect.cell[data-place='{9 * channel + 4}']").hover()
            panels = page.locator(".panel:visible").evaluate_all("panels => panels.map((panel) => panel.dataset.panel)")
            assert panels == ["x", f"x{channel}", "y"]
            panel = page.locator(f"[data-panel=x{channel}]")
            assert f"channel {channel}" in panel.locator("figcaption").inner_text()
            shown = [told(text) for text in panel.locator(".number").all()]
            assert shown == pytest.approx(x[64 * channel : 64 * channel + 64], rel=0.05, abs=0.0051)
            window = [64 * channel + 8 * row + column for row in (2, 3, 4) for column in (2, 3, 4)]
            best = max(window, key=lambda place: x[place])
            frames = [panel.locator(f".frames .{kind}").bounding_box() for kind in ("from", "window")]
            cell = panel.locator(f"[data-place='{best}']").bounding_box()
            middle = cell["x"] + cell["width"] / 2, cell["y"] + cell["height"] / 2
            for box in frames:
                assert box["x"] < middle[0] < box["x"] + box["width"] and box["y"] < middle[1] < box["y"] + box["height"]
        panel.locator(f"[data-place='{best}']").hover()
        assert page.locator("#explanation b").nth(1).inner_text().startswith("∂L/∂x[1, ")
        assert total(page) == pytest.approx(numbers["gradients"][3][best], rel=5e-3)
        assert panel.locator(".frames .focus").count() == page.locator("[data-panel=x] .frames .focus").count() == 1


@pytest.mark.parametrize("layer, kept", [("relu1", "values[2]"), ("drop3", "mask")])
def test_a_cut_gradient_is_struck_through(show, layer, kept):
    with show(PAGES["en"]) as page:
        walk_to(page, layer, back=True)
        kept = page.evaluate(f"[...({{ ...explorer.numbers(), ...explorer.state }}).{kept}]")
        of_image = kept[: len(kept) // 10]
        assert 0 < page.locator("[data-panel=x] .strike").count() == of_image.count(0) < len(of_image)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "bn2", "fc3", "fc4"])
@pytest.mark.parametrize("panel, kind", [("w", "weight"), ("b", "bias")])
def test_a_parameter_collects_over_places_and_images(show, layer, panel, kind):
    """What each image contributes is told, and adds up to the gradient."""
    with show(PAGES["en"]) as page:
        walk_to(page, layer, back=True)
        gradient = page.evaluate(f"explorer.numbers().grads['{layer}.{kind}'][1]")
        own = []
        for n in range(10):
            page.locator("#images input").nth(n).check(force=True)
            page.locator(f"[data-panel={panel}] rect.cell[data-place='1']").hover()
            own.append(told(page.locator("#explanation .filled b").first))
            html = page.locator("#explanation .filled").inner_html().partition("<br>")[0]
            if " = " in html:
                result, tolerance = arithmetic(html)
                assert own[-1] == pytest.approx(result, rel=5e-3, abs=tolerance), html
            assert total(page) == pytest.approx(gradient, rel=5e-3, abs=1e-12)
        assert sum(own) == pytest.approx(gradient, rel=1e-2, abs=5e-3 * max(map(abs, own)))
        if (layer, kind) == ("conv2", "bias"):
            assert total(page) == 0 and "subtracts the mean" in page.locator("#explanation").inner_text()


def test_a_weight_frames_the_pixels_that_it_met(show):
    with show(PAGES["en"]) as page:
        walk_to(page, "conv1", back=True)
        page.locator("[data-panel=w] rect.cell[data-place='4']").hover()
        assert page.locator("[data-panel=x] .frames .from").count() == 64


def test_in_backward_a_panel_shows_what_the_formula_takes(show):
    with show(PAGES["en"]) as page:

        def captions():
            return [caption.partition(" ")[0] for caption in page.locator("#panels figcaption b").all_inner_texts()]

        walk_to(page, "conv1", back=True)
        page.locator("[data-panel=x] rect.cell[data-place='20']").hover()
        assert captions() == ["∂L/∂x", "W", "∂L/∂b", "∂L/∂y"]
        weight = page.evaluate("explorer.state.params['conv1.weight'][1]")
        assert told(page.locator("[data-panel=w] .number").nth(1)) == pytest.approx(weight, abs=0.05)
        page.locator("[data-panel=w] rect.cell[data-place='4']").hover()
        assert captions() == ["x", "∂L/∂W", "∂L/∂b", "∂L/∂y"]
        page.locator("[data-panel=y] rect.cell[data-place='20']").hover()
        assert captions() == ["∂L/∂x", "W", "∂L/∂b", "∂L/∂y"]


@pytest.mark.parametrize("layer", LAYERS[:-1])
@pytest.mark.parametrize("back", [False, True])
def test_every_explanation_ends_in_its_number(show, layer, back):
    """Of a dozen elements. The numbers before it give that number."""
    with at_layer(show, layer, back) as page:
        place = LAYERS.index(layer)
        numbers = page.evaluate("explorer.numbers()")
        expected = numbers["gradients"][place] if back else numbers["values"][place + 1]
        cells = page.locator(f"[data-panel={'x' if back else 'y'}] rect.cell").all()
        for cell in cells[:: max(1, len(cells) // 12)]:
            cell.hover()
            text = page.locator("#explanation .filled").inner_text()
            value = expected[int(cell.get_attribute("data-place"))]
            if "cut" in text or "dropped" in text:
                assert value == 0
            else:
                assert total(page) == pytest.approx(value, rel=5e-3, abs=1e-9)
            html = page.locator("#explanation .filled").inner_html()
            if " = " in html and not re.search("cut|dropped", text):
                result, tolerance = arithmetic(html)
                assert result == pytest.approx(value, abs=tolerance), html


@pytest.mark.parametrize("back", [False, True])
def test_softmax_tells_probability_gradient_and_the_images_own_loss(show, back):
    """Also of logits that exp alone could not take."""
    with show(PAGES["en"]) as page:
        page.evaluate("explorer.state.params['fc4.weight'].forEach((w, p, all) => (all[p] = 500 * w))")
        page.locator("#dropping").uncheck()
        walk_to(page, "softmax", back)
        numbers = page.evaluate("explorer.numbers()")
        assert max(numbers["values"][-1]) > 800
        page.locator("[data-panel=x] rect.cell[data-place='0']").hover()
        assert total(page) == pytest.approx(
            (numbers["gradients"][-1] if back else numbers["probabilities"])[0], rel=5e-3, abs=1e-9
        )
        assert "∞" not in page.locator("#layer").inner_text() and "NaN" not in page.locator("#layer").inner_text()
        assert "← label" in page.locator("[data-panel=x] .note").first.inner_html()
        cells = page.locator("[data-panel=x] .number").all_text_contents() if not back else []
        assert all(len(text) <= 4 for text in cells) and (back or any("e" in text for text in cells))


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("scale", [1, 500])
def test_the_numbers_in_softmaxs_explanation(show, scale, back):
    """Of every class: the numbers of the formula, and forward the image's own loss."""
    with show(PAGES["en"]) as page:
        page.evaluate(f"explorer.state.params['fc4.weight'].forEach((w, p, all) => (all[p] = {scale} * w))")
        page.locator("#dropping").uncheck()
        walk_to(page, "softmax", back)
        for n in (0, 4):
            page.locator("#images input").nth(n).check(force=True)
            z = np.array(page.evaluate("explorer.numbers().values.at(-1)")).reshape(10, 10)[n]
            label = page.evaluate(f"labels[{n}]")
            powers = np.exp(z - z.max())
            p = powers / powers.sum()
            for o in range(10):
                page.locator(f"[data-panel=x] rect.cell[data-place='{10 * n + o}']").hover()
                text = page.locator("#explanation .filled").inner_html().replace("−", "-")
                text = re.sub(r"·10<sup>(.*?)</sup>", r"e\1", text)
                if back:
                    found = re.match(r"\((\S+) - (\d)\) / (\d+) = <b>(\S+)</b>", text).groups()
                    expected = p[o], o == label, 10, (p[o] - (o == label)) / 10
                else:
                    formula, own = text.split("<br>")
                    found = [*re.match(r"e<sup>(\S+) - (\S+)</sup> / (\S+) = <b>(\S+)</b>", formula).groups()]
                    found += re.search(r" = -log (\S+) = (\S+)$", own).groups()
                    expected = z[o], z.max(), powers.sum(), p[o], p[label], np.log(powers.sum()) + z.max() - z[label]
                assert [float(one.strip("()")) for one in found] == pytest.approx(np.array(expected, float), rel=6e-3, abs=1e-9)


@pytest.mark.parametrize("back", [False, True])
def test_dropout_that_is_off_is_told_as_such(show, back):
    with show(PAGES["en"]) as page:
        walk_to(page, "drop3", back)
        assert "1 − p" in page.locator("#layer-formula").inner_text()
        page.locator("#dropping").uncheck()
        assert page.locator("#layer-what").inner_text().startswith("Dropout is off")
        assert page.locator("#layer-formula").inner_text() == ("∂L/∂x = ∂L/∂y" if back else "y = x")
        assert page.locator("#explanation .filled").inner_text().startswith("unchanged: ")


@pytest.mark.parametrize(
    "layer, back, panel, choose, text, frames",
    [
        ("flatten", False, "x", "true", "It goes into 1 output, framed.", 1),
        ("flatten", True, "y", "true", "This gradient goes to 1 input, framed.", 1),
        ("bn2", False, "x", "true", "also into those of the other nine images", 9),
        ("bn2", True, "y", "true", "also to those of the other nine images", 9),
        ("conv1", False, "b", "true", "It is used in 64 outputs of this image", 64),
        ("relu1", False, "x", "values[1][place] < 0", "not above zero, so it is cut", 0),
        ("relu1", True, "y", "values[1][place] < 0", "not above zero, so it is cut", 0),
        ("pool1", False, "x", "place === 63", "not the maximum of any window", 0),
        ("drop3", False, "x", "!explorer.state.mask[place]", "this unit is dropped", 0),
        ("drop3", True, "y", "!explorer.state.mask[place]", "this unit is dropped", 0),
    ],
)
def test_where_a_number_goes(show, layer, back, panel, choose, text, frames):
    with show(PAGES["en"]) as page:
        walk_to(page, layer, back)
        places = page.locator(f"[data-panel={panel}] rect.cell").evaluate_all(
            "cells => cells.map((cell) => Number(cell.dataset.place))"
        )
        place = page.evaluate(
            f"(places) => {{ const {{ values }} = explorer.numbers(); return places.find((place) => {choose}); }}", places
        )
        page.locator(f"[data-panel={panel}] rect.cell[data-place='{place}']").hover()
        assert text in page.locator("#explanation .filled").inner_text()
        assert page.locator(f"[data-panel={'x' if back else 'y'}] .frames .from").count() == frames
        assert page.locator(f"[data-panel={panel}] .frames .window").count() == (layer == "bn2")
        if layer == "bn2":  # what is made of that channel frames it, too
            page.locator(f"[data-panel={'x' if back else 'y'}] rect.cell").first.hover()
            assert page.locator(f"[data-panel={panel}] .frames .window").count() == 1


def test_the_arrow_keys_walk_and_move(show):
    with show(PAGES["en"]) as page:
        page.keyboard.press("ArrowRight")
        assert page.locator("#layer-name").inner_text() == "relu1, forward"
        page.keyboard.press("ArrowLeft")
        page.locator("[data-panel=x] svg").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert page.locator("#explanation b").first.inner_text() == "x[0, 1, 1]"
        page.keyboard.press("Enter")
        assert page.locator("#change").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("#change").is_visible()
        assert page.locator("#layer-name").inner_text() == "conv1, forward"


def test_a_finger_holds_an_element(show):
    with show(PAGES["ko"], "narrow", touch=True) as page:
        page.locator("[data-panel=w] rect.cell[data-place='3']").tap()
        assert page.locator("#explanation b").first.inner_text() == "W[0, 0, 1, 0]"
        assert page.locator("#change").is_visible()
        box = page.locator("#told").bounding_box()
        assert box["y"] + box["height"] <= SIZES["narrow"][1] + 1  # in sight beside what was touched


@pytest.mark.parametrize("release", ["Escape", "click", "image", "walk"])
def test_what_is_held_is_let_go(show, release):
    with show(PAGES["en"]) as page:
        held(page, "w", 3)
        page.locator("#change-value").fill("0.5")  # the slider has the keyboard
        page.locator("[data-panel=x] rect.cell[data-place='9']").hover()
        assert page.locator("#explanation b").first.inner_text() == "W[0, 0, 1, 0]"
        match release:
            case "Escape":
                page.keyboard.press("Escape")
                assert page.evaluate("document.activeElement.closest('.panel').dataset.panel") == "w"
            case "click":
                held(page, "w", 3)
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "none"
            case "image":
                page.locator("#images input").nth(4).check(force=True)
            case "walk":
                page.click("#next")
        assert not page.locator("#change").is_visible()
        page.locator("[data-panel=y] rect.cell").nth(9).hover()
        assert page.locator("#explanation b").first.inner_text() == "y[0, 1, 1]"


def test_the_keyboard_comes_into_a_panel_at_its_first_cell(show):
    with show(PAGES["en"]) as page:
        page.locator("#turn").focus()
        spoken = "document.getElementById('explanation').ariaLive"
        page.locator("[data-panel=y] rect.cell").nth(9).hover()
        assert page.evaluate(spoken) == "off"
        page.keyboard.press("Tab")
        assert page.locator("#explanation b").first.inner_text() == "x[0, 0, 0]"
        assert page.evaluate(spoken) == "polite"
        page.keyboard.press("ArrowRight")
        assert page.locator("#explanation b").first.inner_text() == "x[0, 0, 1]"
        names = page.locator(".panel svg").evaluate_all("drawings => drawings.map((drawing) => drawing.ariaLabel)")
        assert names == ["x input", "W weights", "b bias", "y output"]
        ring = page.locator("[data-panel=x] svg").evaluate(
            "drawing => [drawing.matches(':focus'), getComputedStyle(drawing).outlineOffset]"
        )
        assert ring == [True, "-2px"]  # within the drawing, which clips what is around it


def test_the_keyboard_stays_at_the_ends_of_the_walk(show):
    with show(PAGES["en"]) as page:
        walk_to(page, "relu1", back=True)
        page.locator("#next").press("Enter")
        assert page.evaluate("document.activeElement.id") == "back"


def test_at_the_start_a_layer_is_in_sight(show):
    for size, top in (("wide", 540), ("narrow", 700)):
        with show(PAGES["en"], size, touch=size == "narrow") as page:
            boxes = [drawing.bounding_box() for drawing in page.locator(".panel svg").all()]
            assert boxes[0]["y"] < top
            if size == "wide":
                assert all(box["y"] + box["height"] < SIZES[size][1] for box in boxes)
            walk_to(page, "fc4")
            card = page.locator("[aria-current]").bounding_box()
            assert card["x"] >= 0 and card["x"] + card["width"] <= SIZES[size][0]


@pytest.mark.parametrize("language", PAGES)
def test_a_finger_trains_without_a_search(show, language):
    with show(PAGES[language], "narrow", touch=True) as page:
        before = page.locator("#loss").inner_text()
        boxes = [page.locator(id).bounding_box() for id in ("#loss", "#train", "#walk")]
        assert boxes[0]["y"] < boxes[1]["y"] < boxes[1]["y"] + boxes[1]["height"] < boxes[2]["y"] < 400
        assert page.locator("#settings").get_attribute("open") is None
        page.tap("#train")
        assert page.locator("#loss").inner_text() != before


@pytest.mark.parametrize("language", PAGES)
@pytest.mark.parametrize("layer", ["relu3", "drop3", "softmax"])
def test_panels_beside_each_other_are_at_one_height(show, language, layer):
    with show(PAGES[language], "narrow") as page:
        for back in (False, True):
            walk_to(page, layer, back)
            tops = {drawing.bounding_box()["y"] for drawing in page.locator(".panel svg").all()}
            assert len(tops) == 1


def test_a_formula_is_not_broken_within_an_element(show):
    with show(PAGES["en"], "narrow") as page:
        walk_to(page, "conv1", back=True)
        elements = page.locator("#layer-formula var")
        assert "∂L/∂y[o, r − i + 1, s − j + 1]" in elements.all_inner_texts()
        assert set(elements.evaluate_all("all => all.map((element) => element.getClientRects().length)")) == {1}


def test_the_explanation_stays_in_sight(show):
    with show(PAGES["en"]) as page:
        walk_to(page, "conv2", back=True)
        page.set_viewport_size({"width": 1280, "height": 500})
        page.evaluate("scrollTo(0, 450)")
        box, walk = page.locator("#told").bounding_box(), page.locator("#walk").bounding_box()
        assert walk["y"] + walk["height"] <= box["y"] < 300


def test_a_panel_stays_in_place_when_it_changes_what_it_shows(show):
    with show(PAGES["en"]) as page:
        for layer in ("conv1", "conv2", "bn2", "fc3", "fc4"):
            walk_to(page, layer, back=True)
            places = []
            for panel in ("x", "w", "b", "y"):
                page.locator(f"[data-panel={panel}] rect.cell").first.hover()
                places.append([drawing.bounding_box() for drawing in page.locator(".panel svg").all()])
            assert all(place == places[0] for place in places)


def test_the_answer_names_the_class_of_the_chosen_image(build, show):
    with show(PAGES["en"]) as page:
        for n, label in enumerate(build.data()["labels"]):
            page.locator("#images input").nth(n).check(force=True)
            answer = page.locator("#answer").inner_text()
            assert re.search(rf"says {label} .*: right|says (?!{label}).*; it is {label}\b", answer)


def test_the_way_from_a_card_to_its_layer_is_seen(chromium):
    """Where motion is wanted the drawing grows out of its card; the page is there at once, however quickly one walks."""
    page, wrong = chromium.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(PAGES["en"].as_uri())
    assert page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches") is False
    page.click("[data-layer=conv2]")
    assert page.locator("#layer-name").inner_text() == "conv2, forward"
    moving = "document.getAnimations().filter((a) => a.effect.target.dataset.panel).map((a) => a.effect.target.dataset.panel)"
    assert page.evaluate(f"document.querySelector('[data-layer=fc3]').click(), {moving}") == ["y"]
    page.evaluate("for (let i = 0; i < 7; i++) document.getElementById('next').click()")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("explorer.state.place") == LAYERS.index("fc3") + 10
    assert page.locator("#step").inner_text() == f"Step {LAYERS.index('fc3') + 11} of 26"
    page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished))")
    assert wrong == []
    page.close()
