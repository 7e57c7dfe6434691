"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// --- elements: data become text nodes, so no text in them is ever parsed as HTML -----------------------------------------

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A table. columns: [{name, number}]; rows: lists of texts or elements, the first of which names the row. */
function table(columns, rows, caption = "") {
  const cell = (tag, column, content, more) => make(tag, { ...more, ...(column.number ? { class: "number" } : {}) }, content);
  return make(
    "table",
    {},
    ...(caption ? [make("caption", {}, caption)] : []),
    ...(columns.some((column) => column.name)
      ? [make("thead", {}, make("tr", {}, ...columns.map((column) => cell("th", column, column.name, { scope: "col" }))))]
      : []),
    make(
      "tbody",
      {},
      ...rows.map((row) =>
        make("tr", {}, ...row.map((content, i) => cell(i ? "td" : "th", columns[i], content, i ? {} : { scope: "row" })))
      )
    )
  );
}

const keysAndValues = (settings) => table([{}, {}], Object.entries(settings).map(([key, value]) => [spaced(key), shown(value)]));

const spaced = (key) => key.replaceAll("_", " ");

/** A setting as text. */
function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) && Math.abs(value) >= 1e4 ? value.toLocaleString("en") : String(value);
  if (Array.isArray(value)) return value.map(shown).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : value;
}

// --- numbers ----------------------------------------------------------------------------------------------------------

const isNumber = (value) => typeof value === "number";
const fixed = (value, digits = 4) => (isNumber(value) ? value.toFixed(digits) : "–");
const percent = (value, digits = 2) => (isNumber(value) ? `${(100 * value).toFixed(digits)} %` : "–");
const count = (value) => (isNumber(value) ? Math.round(value).toLocaleString("en") : "–");

/** A number of any size, to three digits. */
function digits3(value) {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e4) ? value.toExponential(2).replace("e+", "e") : String(Number(value.toPrecision(3)));
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

// --- charts -----------------------------------------------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 760px)");
const touch = matchMedia("(pointer: coarse)");
const charts = [];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Text for Plotly, escaped, as Plotly parses tags such as <b>, and fills in values such as %{x}. */
const literal = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("%{", "%&#123;");

/** The same, without its middle if it is too long for the chart: names that begin alike often end differently. */
function brief(text) {
  const half = narrow.matches ? 7 : 13;
  const letters = [...text]; // not text.slice, which can cut a letter such as an emoji in two
  return literal(letters.length > 2 * half + 2 ? [...letters.slice(0, half), "…", ...letters.slice(-half - 1)].join("") : text);
}

/** Draw a chart, and redraw it when the colours or the width change. draw: returns its traces and layout. */
function chart(element, draw) {
  charts.push([element, draw]);
  render(element, draw);
}

function render(element, draw) {
  const { traces, layout } = draw();
  Plotly.react(element, traces, merged(baseLayout(), layout), {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false, // it would upload the chart
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });
}

for (const query of [dark, narrow]) {
  query.addEventListener("change", () => charts.forEach(([element, draw]) => render(element, draw)));
}

function baseLayout() {
  const axis = {
    gridcolor: colour("grid"),
    linecolor: colour("line"),
    zeroline: false,
    ticks: "outside",
    tickcolor: colour("line"),
    automargin: true,
    title: { standoff: 8 },
  };
  return {
    uirevision: "keep", // keeps the zoom
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 12, color: colour("muted") },
    margin: { l: 48, r: 12, t: 12, b: 40 },
    xaxis: axis,
    yaxis: axis,
    hoverlabel: {
      bgcolor: colour("card"),
      bordercolor: colour("line"),
      font: { color: colour("text"), size: 13 },
      namelength: -1,
      align: "left",
    },
    showlegend: false,
    legend: { font: { color: colour("text") } },
    dragmode: touch.matches ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("text") },
  };
}

function merged(one, other) {
  const isObject = (value) => value && typeof value === "object" && !Array.isArray(value);
  const both = { ...one };
  for (const [key, value] of Object.entries(other)) {
    both[key] = isObject(value) && isObject(one[key]) ? merged(one[key], value) : value;
  }
  return both;
}

/** A card with a heading, an optional element beside it, and a chart. label: what the chart shows, for screen readers. */
function chartCard(title, beside, size, label) {
  const element = make("div", { class: `chart ${size}`, role: "img", "aria-label": label });
  const head = make("div", { class: "card-head" }, make("h3", {}, title), ...(beside ? [beside] : []));
  return [make("div", { class: "card" }, head, element), element];
}

const epochAxis = (rows) => ({
  title: { text: "epoch" },
  tickformat: "d",
  ...(rows.length < 12 ? { dtick: 1 } : {}),
});

/** A curve over epochs. */
function curve(rows, key, name, style) {
  return {
    x: rows.map((row) => row.epoch),
    y: rows.map((row) => row[key] ?? null),
    name,
    mode: rows.length > 60 ? "lines" : "lines+markers",
    marker: { size: rows.length > 1 ? 5 : 8 },
    ...style,
  };
}
