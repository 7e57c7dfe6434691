"use strict";

const { runs } = data;

/** Colours that colour-blind readers can distinguish. Runs with the same colour have different marks. */
const COLOURS = {
  light: ["#0b62a8", "#c25600", "#00795c", "#a8417f", "#8a6d00", "#2b97cf", "#5b3fa0", "#444441"],
  dark: ["#6cb6f2", "#f0a04b", "#4fc9a4", "#e08abd", "#e6d05a", "#a5dcff", "#b7a1f0", "#c9c9c4"],
};
const MARKS = ["circle", "square", "diamond", "cross", "triangle-up"];
const MARK_TEXT = ["●", "■", "◆", "✚", "▲"];

const runColour = (i) => COLOURS[dark.matches ? "dark" : "light"][i % COLOURS.light.length];
const markOf = (i) => Math.floor(i / COLOURS.light.length) % MARKS.length;

/** A run's mark in its colour, then its name. */
function runName(i) {
  const mark = make("span", { class: "mark", "aria-hidden": "true" }, MARK_TEXT[markOf(i)]);
  const recolour = () => (mark.style.color = runColour(i));
  recolour();
  dark.addEventListener("change", recolour);
  return make("span", { title: runs[i].path }, mark, runs[i].name);
}

// --- results ----------------------------------------------------------------------------------------------------------

const last = (run) => run.metrics.at(-1) ?? {};

const RESULTS = [
  ["test accuracy", (run) => last(run).test_accuracy, percent, Math.max],
  ["test loss", (run) => last(run).test_loss, fixed, Math.min],
  ["best test accuracy", (run) => run.best?.test_accuracy, percent, Math.max],
  ["in epoch", (run) => run.best?.epoch, count, null],
  ["train accuracy", (run) => last(run).train_accuracy, percent, Math.max],
  ["train loss", (run) => last(run).train_loss, fixed, Math.min],
  ["training time", (run) => run.seconds || undefined, (seconds) => (seconds ? duration(seconds) : "–"), null],
  ["images/s", (run) => last(run).images_per_second, count, Math.max],
];

function results() {
  const bests = RESULTS.map(([, of, , best]) => best && best(...runs.map(of).filter(isNumber)));
  const cell = (run, [, of, text], i) =>
    make("span", runs.length > 1 && bests[i] !== null && of(run) === bests[i] ? { class: "best" } : {}, text(of(run)));
  byId("result-table").append(
    table(
      [{ name: "run" }, { name: "state" }, { name: "epochs" }, ...RESULTS.map(([name]) => ({ name, number: true }))],
      runs.map((run, i) => [
        runName(i),
        make("span", { class: `pill ${run.state}` }, run.state),
        `${count(last(run).epoch ?? 0)} of ${count(run.epochs)}`,
        ...RESULTS.map((result, k) => cell(run, result, k)),
      ])
    )
  );
}

// --- curves -----------------------------------------------------------------------------------------------------------

function curves() {
  for (const [title, what, format] of [["Loss", "loss", ".4f"], ["Accuracy", "accuracy", ".2%"]]) {
    const [card, element] = chartCard(title, null, "tall", `${title} of all runs by epoch; the last values are in the table above`);
    byId("curve-charts").append(card);
    chart(element, () => ({
      traces: runs.flatMap((run, i) => ["train", "test"].map((part) => runCurve(run, i, part, what, format))),
      layout: {
        hovermode: "closest",
        showlegend: true,
        legend: { orientation: "h", x: 0, y: -0.14, yanchor: "top" },
        xaxis: epochAxis(runs.reduce((longest, run) => (run.metrics.length > longest.length ? run.metrics : longest), [])),
        yaxis: what === "accuracy" ? { tickformat: "~%" } : {},
      },
    }));
  }
}

function runCurve(run, i, part, what, format) {
  return curve(run.metrics, `${part}_${what}`, brief(run.name), {
    legendgroup: String(i),
    showlegend: part === "test",
    line: { color: runColour(i), width: part === "test" ? 2.2 : 1.4, dash: part === "test" ? "solid" : "dash" },
    marker: { size: part === "test" ? 6 : 4, symbol: MARKS[markOf(i)], maxdisplayed: markOf(i) && 20 },
    ...(markOf(i) ? { mode: "lines+markers" } : {}), // also if it is long: another run has the same colour
    hovertemplate: `<b>${literal(run.name)}</b><br>${part} ${what} %{y:${format}} in epoch %{x}<extra></extra>`,
  });
}

// --- settings ---------------------------------------------------------------------------------------------------------

const settingsTable = (keys) =>
  table(
    [{ name: "setting" }, ...runs.map((_, i) => ({ name: runName(i) }))],
    keys.map((key) => [spaced(key), ...runs.map((run) => (key in run.config ? shown(run.config[key]) : "–"))])
  );

function differences() {
  const place = byId("differing");
  if (data.differing.length) {
    const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Settings that differ" });
    scroll.append(settingsTable(data.differing));
    place.append(make("div", { class: "card" }, scroll));
  } else {
    place.append(make("p", { class: "empty" }, "None: all settings are equal."));
  }
  byId("all-settings").append(settingsTable(data.keys));
}

// --- the page ---------------------------------------------------------------------------------------------------------

byId("name").append(runs.length === 1 ? "One run" : `${runs.length} runs`);
results();
curves();
differences();
