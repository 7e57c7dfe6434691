"""The report and the comparison in Chromium, offline: they look right, and react to the mouse and the keyboard."""

import pytest

from alexnet import comparison, report

from ..helpers import reports
from ..helpers.browser import FAINT, SIZES


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a run")
    report.write(folder / "report.html", reports.config(), reports.metrics(), reports.statistics(), reports.found())
    return folder / "report.html"


def chart(page, heading):
    """The chart in the card with this heading."""
    return page.locator(".card", has=page.get_by_role("heading", name=heading, exact=True)).locator(".chart")


def middle(page, element):
    """Scroll an element into view and return the coordinates of its middle."""
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def axis_range(page, element):
    return page.evaluate("element => element.layout.xaxis.range", element.element_handle())


# --- the report -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_is_drawn(written, show, size, scheme):
    with show(written, size, scheme) as page:
        assert page.locator(".chart .main-svg").count() >= 6  # loss, accuracy, rate, throughput, layers, confusion
        assert page.locator("h1").text_content() == written.parent.name
        assert [heading.text_content() for heading in page.locator("h2").all()] == [
            "Curves",
            "Layers over time",
            "Confusion matrix",
            "Worst mistakes",
            "Kernels of the first convolution",
            "Outputs of the layers for one image",
            "Settings",
        ]
        page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
        assert page.locator("img").count() > 70
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("[...document.images].every((image) => image.alt || image.parentElement.ariaLabel)")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert max(background) < 40 if scheme == "dark" else min(background) > 220
        assert page.evaluate(FAINT) == []


def test_an_open_page_follows_the_colour_scheme(written, show):
    with show(written) as page:
        light = page.evaluate("document.querySelector('.chart .xtick text').style.fill")
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("light => document.querySelector('.chart .xtick text').style.fill !== light", arg=light)
        page.emulate_media(color_scheme="light")
        page.wait_for_function("light => document.querySelector('.chart .xtick text').style.fill === light", arg=light)


def test_charts_show_values_under_the_mouse(written, show):
    with show(written) as page:
        for heading, label in (("Loss", "train"), ("Learning rate", "step"), ("True class by predicted class", "predicted")):
            page.mouse.move(*middle(page, chart(page, heading).locator(".nsewdrag")))
            hover = chart(page, heading).locator(".hoverlayer")
            hover.locator("text").first.wait_for()
            assert label in hover.text_content()


def test_dragging_zooms_and_a_double_click_resets(written, show):
    with show(written) as page:
        loss = chart(page, "Loss")
        x, y = middle(page, loss.locator(".nsewdrag"))
        whole = axis_range(page, loss)
        page.mouse.move(x - 60, y - 60)
        page.mouse.down()
        page.mouse.move(x + 60, y + 60, steps=5)
        page.mouse.up()
        page.wait_for_function(
            "width => { const [a, b] = document.querySelector('.chart').layout.xaxis.range; return b - a < width }",
            arg=(whole[1] - whole[0]) / 2,
        )
        page.mouse.dblclick(x, y)
        page.wait_for_function(
            "width => { const [a, b] = document.querySelector('.chart').layout.xaxis.range; return b - a >= width }",
            arg=(whole[1] - whole[0]) * 0.99,
        )


def test_every_quantity_of_the_layers_can_be_chosen(written, show):
    with show(written) as page:
        element = page.locator("#layer-chart .chart")
        drawn = {}
        for option in page.locator("#layers option").all():
            page.locator("#layers select").select_option(option.get_attribute("value"))
            figure = page.evaluate(
                "e => [e.layout.yaxis.type, e.data.map((trace) => [trace.name, trace.y.at(-1)])]", element.element_handle()
            )
            drawn[option.text_content()] = figure
        assert drawn["Update by weight, mean |Δw| / mean |w|"] == ["log", [["conv1", pytest.approx(0.001 / 6 / 0.1)]]]
        assert drawn["Outputs, mean"] == ["linear", [["conv1", -0.5], ["relu1", 0.25]]]
        assert drawn["Outputs that are zero"] == ["linear", [["conv1", 0], ["relu1", 0.5]]]
        assert drawn["Updates of biases, mean |Δb|"] == ["log", []]


def test_the_labels_of_an_axis_differ(tmp_path, show):
    """For accuracies that are close to each other, for small shares, and for few steps."""
    rows = [{**row, "train_accuracy": 0.98, "test_accuracy": 0.99} for row in reports.metrics()]
    statistics = reports.statistics(3)
    for row in statistics:
        row["layers"]["relu1"]["zeros"] = row["step"] / 300
        row["layers"]["conv1"]["zeros"] = None
    report.write(tmp_path / "report.html", reports.config(), rows, statistics)
    with show(tmp_path / "report.html") as page:
        page.locator("#layers select").select_option(label="Outputs that are zero")
        for element in (chart(page, "Accuracy"), chart(page, "Learning rate"), page.locator("#layer-chart .chart")):
            for axis in ("xtick", "ytick"):
                labels = element.locator(f".{axis} text").all_text_contents()
                assert len(labels) > 1 and len(set(labels)) == len(labels)


def test_the_keyboard_reaches_everything(written, show):
    with show(written) as page:
        reached = set()
        for _ in range(80):
            page.keyboard.press("Tab")
            focused = page.evaluate("[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]")
            reached.add(focused[0])
            assert focused[0] == "BODY" or focused[1] != "none"
        assert reached >= {"A", "SUMMARY", "SELECT"}


def test_a_run_that_has_just_started_has_a_report(tmp_path, show):
    report.write(tmp_path / "report.html", reports.config(), [], [], running=True)
    with show(tmp_path / "report.html", "narrow") as page:
        assert page.locator(".pill").text_content() == "running"
        assert page.locator(".empty").count() == 6
        assert page.evaluate(FAINT) == []


def test_one_epoch_without_mistakes_or_statistics(tmp_path, show):
    found = reports.found(channels=1, right=True)
    report.write(tmp_path / "report.html", reports.config(1), reports.metrics(1), [], found)
    with show(tmp_path / "report.html", "narrow") as page:
        assert page.locator(".chart .main-svg").count() >= 5
        assert "every test image is classified correctly" in page.locator("#mistakes").text_content()
        assert "No layer has been measured yet" in page.locator("#layers").text_content()


@pytest.mark.parametrize("size, classes", [("narrow", 60), ("wide", 1000)])
def test_a_report_with_many_classes(tmp_path, show, size, classes):
    found = reports.found(60, 3, [f"a class with quite a long name, number {i}" for i in range(classes)])
    report.write(tmp_path / "report.html", reports.config(), reports.metrics(), reports.statistics(1), found)
    with show(tmp_path / "report.html", size) as page:
        assert page.locator("#confusion .chart").count() == (classes == 60)
        assert page.locator("#confusion table tr").count() > 5


def test_nothing_in_the_data_becomes_markup(tmp_path, show):
    folder = tmp_path / reports.HOSTILE.replace("/", "∕")
    folder.mkdir()
    statistics = reports.statistics()
    for row in statistics:
        row["layers"]["<b>conv</b>"] = row["layers"].pop("conv1")
    config = reports.config(data_dir=reports.HOSTILE, recipe="<i>x</i>")
    found = reports.found(names=[reports.HOSTILE, "<b>bold</b>", "a &amp; b", "x" * 200])
    report.write(folder / "report.html", config, reports.metrics(), statistics, found, note=reports.HOSTILE)
    with show(folder / "report.html", "narrow") as page:
        assert page.locator("h1").text_content() == folder.name and page.title().startswith(folder.name)
        assert "<i>x</i>" in page.locator("#state").text_content()
        assert page.locator("body b, body i:not(.bar i), body img[src=x]").count() == 0
        assert "<b>bold</b>" in page.locator("#confusion .chart").text_content()
        assert "a &amp; b" in page.locator("#confusion .chart").text_content()
        assert "<b>conv</b>" in page.locator("#layer-chart .legend").text_content()
        assert page.locator("#confusion .nsewdrag").bounding_box()["width"] > 150  # even beside long names


# --- the comparison ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, scheme", [("wide", "light"), ("narrow", "dark")])
def test_a_comparison_is_drawn(tmp_path, show, size, scheme):
    runs = [
        comparison.Run(tmp_path / name, reports.config(epochs, lr=rate), reports.metrics(done))
        for name, epochs, done, rate in (
            ("slow", 5, 5, 0.01),
            ("fast", 3, 2, 0.1),
            (reports.HOSTILE.replace("/", "∕"), 4, 0, 0.1),
        )
    ]
    comparison.write(tmp_path / "compare.html", runs)
    with show(tmp_path / "compare.html", size, scheme) as page:
        assert page.locator(".chart .main-svg").count() >= 2
        assert [cell.text_content() for cell in page.locator("#differing tr").first.locator("th").all()][1:3] == [
            "●slow",
            "●fast",
        ]
        assert [cell.text_content() for cell in page.locator("#differing tbody th").all()] == ["lr", "epochs"]
        assert page.evaluate(FAINT) == []
        loss = chart(page, "Loss")
        point = loss.locator(".scatterlayer .trace").nth(1).locator(".points path").nth(2)
        page.mouse.move(*middle(page, point))
        loss.locator(".hoverlayer text").first.wait_for()
        assert "slow" in loss.locator(".hoverlayer").text_content()


def test_runs_with_the_same_colour_have_different_marks(tmp_path, show):
    """Also long runs, whose first eight have no marks."""
    runs = [comparison.Run(tmp_path / f"run {i}", reports.config(70), reports.metrics(70)) for i in range(10)]
    comparison.write(tmp_path / "compare.html", runs)
    with show(tmp_path / "compare.html") as page:
        marks = [trace.locator(".point").count() for trace in chart(page, "Loss").locator(".scatterlayer .trace").all()]
        assert marks[:16] == [0] * 16 and all(10 <= count <= 40 for count in marks[16:])


def test_the_accuracies_of_similar_runs_have_different_labels(tmp_path, show):
    rows = [{**row, "train_accuracy": 0.98, "test_accuracy": 0.99} for row in reports.metrics()]
    comparison.write(tmp_path / "compare.html", [comparison.Run(tmp_path / "a", reports.config(), rows)])
    with show(tmp_path / "compare.html") as page:
        labels = chart(page, "Accuracy").locator(".ytick text").all_text_contents()
        assert len(labels) > 1 and len(set(labels)) == len(labels)


def test_any_name_of_a_run_is_shown_as_it_is(tmp_path, show):
    names = ["lr%{x}of%{y}&#37;", "\N{SMILING FACE WITH OPEN MOUTH}" * 40]
    runs = [comparison.Run(tmp_path / name, reports.config(), reports.metrics()) for name in names]
    comparison.write(tmp_path / "compare.html", runs[:1])
    with show(tmp_path / "compare.html") as page:
        loss = chart(page, "Loss")
        assert loss.locator(".legendtext").text_content() == names[0]
        page.mouse.move(*middle(page, loss.locator(".scatterlayer .trace").nth(1).locator(".points path").nth(1)))
        loss.locator(".hoverlayer text").first.wait_for()
        assert names[0] in loss.locator(".hoverlayer").text_content()
    comparison.write(tmp_path / "compare.html", runs[1:])
    with show(tmp_path / "compare.html") as page:
        assert chart(page, "Loss").locator(".legendtext").text_content() == f"{names[1][:13]}…{names[1][:14]}"
