"""The explorer: its numbers are minidl's, its pages are the present ones, and it answers to mouse, keyboard and touch."""

import json
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
        optimizer = SGD(ours.net.parameters(), 0.5)
        page.locator("#rate").fill(str(round(np.log10(0.5), 1)))
        optimizer.param_groups[0]["lr"] = 10 ** round(np.log10(0.5), 1)
        before = page.locator("#loss").inner_text()
        for _ in range(3):
            page.click("#train")
            ours.numbers()
            optimizer.step()
        ours.compare(page)
        assert float(page.locator("#loss").inner_text()) < float(before)
        assert len(page.locator("#losses polyline").get_attribute("points").split()) == 4
        page.click("#reset")
        library().compare(page)


def test_a_rate_that_is_too_large_is_told_and_reset_helps(show):
    with show(PAGES["en"]) as page:
        page.evaluate("explorer.state.params['fc4.weight'].fill(NaN)")
        page.click("#train")
        assert "learning rate is too large" in page.locator("#answer").inner_text()
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


# --- what is seen -----------------------------------------------------------------------------------------------------


def walk_to(page, layer, back=False):
    place = LAST - LAYERS.index(layer) if back else LAYERS.index(layer)
    page.locator("#place").fill(str(place))


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
            assert page.locator("#explanation b").count() and page.locator(".frames .focus").count() == 1
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


def total(page):
    """The number that the explanation ends in."""
    text = page.locator("#explanation .filled b").last.inner_html()
    return float(text.replace("−", "-").replace("·10<sup>", "e").replace("</sup>", ""))


def test_an_output_shows_its_window_kernel_and_sum(show):
    with show(PAGES["en"]) as page:
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


@pytest.mark.parametrize("layer, kept", [("relu1", "values[2]"), ("drop3", "mask")])
def test_a_cut_gradient_is_struck_through(show, layer, kept):
    with show(PAGES["en"]) as page:
        walk_to(page, layer, back=True)
        kept = page.evaluate(f"[...({{ ...explorer.numbers(), ...explorer.state }}).{kept}]")
        of_image = kept[: len(kept) // 10]
        assert 0 < page.locator("[data-panel=x] .strike").count() == of_image.count(0) < len(of_image)


def test_a_weight_collects_over_places_and_images(show):
    with show(PAGES["en"]) as page:
        walk_to(page, "conv1", back=True)
        page.locator("[data-panel=w] rect.cell[data-place='4']").hover()
        assert page.locator("[data-panel=x] .frames .from").count() == 64
        assert float(page.locator("#explanation .filled").inner_text().split()[-1].replace("−", "-")) == pytest.approx(
            page.evaluate("explorer.numbers().grads['conv1.weight'][4]"), rel=5e-3
        )


@pytest.mark.parametrize("layer", LAYERS[:-1])
@pytest.mark.parametrize("back", [False, True])
def test_every_explanation_ends_in_its_number(show, layer, back):
    """Of a dozen elements."""
    if layer == "flatten":
        return
    with show(PAGES["en"]) as page:
        page.locator("#images input").nth(3).check(force=True)
        walk_to(page, layer, back)
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


def test_another_image(show):
    with show(PAGES["en"]) as page:
        answers = []
        for n in range(10):
            page.locator("#images input").nth(n).check(force=True)
            answers.append(page.locator("#answer").inner_text())
        assert any("right" in answer for answer in answers) and any(f"it is {n}" in answers[n] for n in range(10))


def test_the_way_from_a_card_to_its_layer_is_seen(chromium):
    """Where motion is wanted: the drawing moves, and the page ends up the same."""
    page = chromium.new_page()
    page.goto(PAGES["en"].as_uri())
    assert page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches") is False
    page.click("[data-layer=conv2]")
    names = page.evaluate(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done("
        "document.getAnimations().map((a) => a.effect.pseudoElement)))))"
    )
    assert any("view-transition" in name and "layer" in name for name in names if name)
    page.wait_for_function("document.querySelector('#layer-name').textContent === 'conv2, forward'")
    page.close()
