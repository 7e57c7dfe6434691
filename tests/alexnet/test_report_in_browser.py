"""The report and the comparison in Chromium, offline: they look right, and react to the mouse and the keyboard."""

import numpy as np
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


def rows(page, selector):
    """The texts of the cells of a table's body, row by row."""
    cells = "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    return page.locator(f"{selector} tbody tr").evaluate_all(cells)


def traces(page, heading):
    """What the chart in the card with this heading draws."""
    return chart(page, heading).evaluate(
        "e => e.data.map(({ name, x, y, z, text, customdata, line }) => ({ name, x, y, z, text, customdata, line }))"
    )


def fixed(value):
    return f"{value:.4f}"


def percent(value, digits=2):
    return f"{100 * value:.{digits}f} %"


def metrics(epochs):
    """Of a run whose best epoch is the last but one."""
    made = reports.metrics(epochs)
    made[-2]["test_accuracy"], made[-1]["test_accuracy"] = made[-1]["test_accuracy"], made[-2]["test_accuracy"]
    return made


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


def test_the_tiles_curves_and_epochs_have_the_runs_numbers(tmp_path, show):
    of_epochs = metrics(3)
    last = of_epochs[-1]
    report.write(tmp_path / "report.html", reports.config(), of_epochs, reports.statistics())
    with show(tmp_path / "report.html") as page:
        texts = "tiles => tiles.map((tile) => [...tile.children].map((text) => text.textContent))"
        assert page.locator("#tiles > div").evaluate_all(texts) == [
            ["Test accuracy", percent(last["test_accuracy"]), f"train {percent(last['train_accuracy'])}"],
            ["Test loss", fixed(last["test_loss"]), f"train {fixed(last['train_loss'])}"],
            ["Best epoch", "2", f"test accuracy {percent(of_epochs[1]['test_accuracy'])}"],
            ["Training time", "37.5 s", "last epoch 13.5 s"],
            ["Speed", "103", "images a second"],
        ]
        assert page.locator("#state span").all_text_contents()[:2] == ["finished", "epoch 3 of 3"]
        for heading, what in (("Loss", "loss"), ("Accuracy", "accuracy")):
            drawn = traces(page, heading)
            for trace, part, dash in zip(drawn, ("train", "test"), ("dash", "solid"), strict=True):
                assert (trace["name"], trace["line"]["dash"], trace["x"]) == (part, dash, [1, 2, 3])
                assert trace["y"] == [row[f"{part}_{what}"] for row in of_epochs]
        assert [trace["y"] for trace in traces(page, "Throughput")] == [[101, 102, 103]]
        (rate,) = traces(page, "Learning rate")
        assert (rate["x"], rate["y"]) == ([1, 2, 3, 4, 5, 6], [0.02] * 6)
        assert rows(page, "#epochs") == [
            [
                f"{row['epoch']}",
                fixed(row["train_loss"]),
                percent(row["train_accuracy"]),
                fixed(row["test_loss"]),
                percent(row["test_accuracy"]),
                f"{row['lr']:.3g}",
                f"{row['seconds']:.1f}",
                f"{row['images_per_second']:.0f}",
            ]
            for row in of_epochs
        ]
        assert rows(page, "#layer-table") == [
            ["conv1", "0.1", "1.67e-4", "0.00167", "0", "–", "0.167", "-0.5", "0.0 %"],
            ["relu1", "–", "–", "–", "–", "–", "–", "0.25", "50.0 %"],
        ]


def test_the_confusion_and_the_mistakes_are_those_of_the_network(written, show):
    found = reports.found()
    names, counts = found.classes, found.confusion
    assert (counts != counts.T).any()
    with show(written) as page:
        assert page.locator("#confusion .lead").text_content().startswith(f"{counts.trace()} of {counts.sum()} test images")
        matrix, texts = traces(page, "True class by predicted class")
        assert matrix["z"] == (counts / counts.sum(axis=1, keepdims=True)).tolist()
        assert matrix["customdata"] == [
            [[true, predicted, f"{counts[i, j]}", f"{counts[i].sum()}"] for j, predicted in enumerate(names)]
            for i, true in enumerate(names)
        ]
        cells = [(j, i, f"{count}") for (i, j), count in np.ndenumerate(counts) if count]
        assert list(zip(texts["x"], texts["y"], texts["text"], strict=True)) == cells
        layout = chart(page, "True class by predicted class").evaluate("e => [e.layout.xaxis, e.layout.yaxis]")
        assert [axis["title"]["text"] for axis in layout] == ["predicted", "true"]
        assert all(axis["ticktext"] == list(names) for axis in layout)
        pairs = {
            (true, predicted, f"{counts[i, j]}", percent(counts[i, j] / counts[i].sum(), 1))
            for i, true in enumerate(names)
            for j, predicted in enumerate(names)
            if i != j and counts[i, j]
        }
        assert set(map(tuple, rows(page, "#confusion"))) == pairs
        cards = page.locator("#mistakes figure").evaluate_all(
            "cards => cards.map((card) => [card.querySelector('img').alt, "
            "...[...card.querySelector('figcaption').children].map((line) => line.textContent)])"
        )
        assert cards == [
            [
                f"Test image {mistake.place}: {names[mistake.label]}, predicted {names[mistake.prediction]}",
                f"predicted{names[mistake.prediction]}\u00a0{percent(mistake.probability, 1)}",
                f"true{names[mistake.label]}\u00a0{percent(mistake.label_probability, 1)}",
                f"loss {mistake.loss:.2f}, image {mistake.place}",
            ]
            for mistake in found.mistakes
        ]
        likely = np.argsort(-found.probabilities, kind="stable")
        bars = [text for i in likely for text in (names[i], "", percent(found.probabilities[i], 1))]
        assert page.locator(".bars > *").all_text_contents() == bars
        assert page.locator(".sample h3").text_content() == f"True: {names[found.label]}"


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


def test_no_button_of_a_chart_uploads_it(written, show):
    with show(written) as page:
        buttons = {button.get_attribute("data-title") for button in page.locator(".modebar-btn").all()}
    assert buttons == {"Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}


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
    """Also what is in folded parts, and tables that may need to be scrolled."""
    with show(written) as page:
        page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
        page.evaluate("window.targets = [...document.querySelectorAll('[tabindex], .scroll, a[href], button, select, summary')]")
        reached = set()
        while True:
            page.keyboard.press("Tab")
            index, tag, outline = page.evaluate(
                "[targets.indexOf(document.activeElement), document.activeElement.tagName, "
                "getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert tag == "BODY" or outline != "none"
            if index in reached:
                break
            reached.add(index)
        missing = page.evaluate(
            "i => targets.filter((_, k) => !i.includes(k)).map((e) => e.outerHTML.slice(0, 80))", list(reached)
        )
        assert missing == []
        reached_tags = set(page.evaluate("i => targets.filter((_, k) => i.includes(k)).map((e) => e.tagName)", list(reached)))
        assert reached_tags >= {"A", "DIV", "SELECT", "SUMMARY"}


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


def test_a_comparison_has_the_numbers_of_its_runs(tmp_path, show):
    """The first has the better loss and accuracy on the test images, the second on the training images."""
    first, second = metrics(5), metrics(2)
    for row in second:
        row["train_loss"] /= 100
        row["train_accuracy"] = 1 - 0.01 * row["train_accuracy"]
    runs = [
        comparison.Run(tmp_path / "slow", reports.config(5, lr=0.01), first),
        comparison.Run(tmp_path / "fast", reports.config(3, lr=0.1), second),
    ]
    comparison.write(tmp_path / "compare.html", runs)
    with show(tmp_path / "compare.html") as page:
        expected = []
        for name, state, epochs, seconds, of_epochs in (
            ("slow", "finished", "5 of 5", "1 min", first),
            ("fast", "stopped", "2 of 3", "24.0 s", second),
        ):
            last, best = of_epochs[-1], of_epochs[-2]
            expected.append(
                [
                    f"●{name}",
                    state,
                    epochs,
                    percent(last["test_accuracy"]),
                    fixed(last["test_loss"]),
                    percent(best["test_accuracy"]),
                    f"{best['epoch']}",
                    percent(last["train_accuracy"]),
                    fixed(last["train_loss"]),
                    seconds,
                    f"{last['images_per_second']:.0f}",
                ]
            )
        assert rows(page, "#result-table") == expected
        bold = "rows => rows.map((row) => [...row.cells].flatMap((cell, i) => (cell.querySelector('.best') ? [i] : [])))"
        assert page.locator("#result-table tbody tr").evaluate_all(bold) == [[3, 4, 5, 10], [7, 8]]
        for heading, what in (("Loss", "loss"), ("Accuracy", "accuracy")):
            drawn = traces(page, heading)
            assert [trace["name"] for trace in drawn] == ["slow", "slow", "fast", "fast"]
            assert [trace["line"]["dash"] for trace in drawn] == ["dash", "solid"] * 2
            assert [trace["y"] for trace in drawn] == [
                [row[f"{part}_{what}"] for row in run.metrics] for run in runs for part in ("train", "test")
            ]
        assert rows(page, "#differing") == [["lr", "0.01", "0.1"], ["epochs", "5", "3"]]
        settings = {name: values for name, *values in rows(page, "#all-settings")}
        assert settings["lr"] == ["0.01", "0.1"] and settings["model"] == ["cifar-bn"] * 2 and settings["data dir"] == ["–"] * 2
