"use strict";

const { metrics, statistics, findings } = data;
const last = metrics.at(-1);

function empty(text) {
  return make("p", { class: "empty" }, text);
}

// --- headline ---------------------------------------------------------------------------------------------------------

function headline() {
  const { settings, best } = data;
  const done = last ? last.epoch : 0;
  byId("name").append(data.name);
  byId("written").append(`Written ${data.written}${data.state === "running" ? "; reload it for newer values" : ""}.`);
  byId("state").append(
    make("span", { class: `pill ${data.state}` }, data.state),
    make("span", {}, `epoch ${count(done)} of ${count(data.epochs)}`),
    make("span", {}, `${settings.model} on ${settings.data}, recipe ${settings.recipe}`)
  );
  Object.assign(byId("progress"), { max: data.epochs, value: done });
  if (!last) return;
  byId("tiles").append(
    tile("Test accuracy", percent(last.test_accuracy), `train ${percent(last.train_accuracy)}`),
    tile("Test loss", fixed(last.test_loss), `train ${fixed(last.train_loss)}`),
    tile("Best epoch", count(best.epoch), `test accuracy ${percent(best.test_accuracy)}`),
    tile("Training time", duration(data.seconds), `last epoch ${duration(last.seconds)}`),
    tile("Speed", count(last.images_per_second), "images a second")
  );
}

function tile(name, value, more) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, value), make("dd", { class: "small" }, more));
}

// --- curves -----------------------------------------------------------------------------------------------------------

function curves() {
  if (!last) {
    byId("curve-charts").replaceWith(empty("The first epoch is not complete yet."));
    byId("epochs").parentElement.remove();
    return;
  }
  trainAndTest("Loss", "loss", ".4f", fixed);
  trainAndTest("Accuracy", "accuracy", ".2%", percent);
  learningRate();
  single("Throughput", "images_per_second", "images a second", ",.0f", count);
  const columns = ["epoch", "train loss", "train accuracy", "test loss", "test accuracy", "learning rate", "seconds", "images/s"];
  byId("epochs").append(
    table(
      columns.map((name, i) => ({ name, number: i > 0 })),
      metrics.map((row) => [
        count(row.epoch),
        fixed(row.train_loss),
        percent(row.train_accuracy),
        fixed(row.test_loss),
        percent(row.test_accuracy),
        digits3(row.lr),
        fixed(row.seconds, 1),
        count(row.images_per_second),
      ])
    )
  );
}

function trainAndTest(title, what, format, text) {
  const legend = make("span", { class: "legend" }, make("span", { class: "train" }, "train"), make("span", {}, "test"));
  const told = (part) => `${part} from ${text(metrics[0][`${part}_${what}`])} to ${text(last[`${part}_${what}`])}`;
  const [card, element] = chartCard(title, legend, "", `${title} by epoch: ${told("train")}, ${told("test")}`);
  byId("curve-charts").append(card);
  const style = (part, dash) => ({
    line: { color: colour(part), width: 2, dash },
    hovertemplate: `%{y:${format}}<extra>${part}</extra>`,
  });
  chart(element, () => ({
    traces: [
      curve(metrics, `train_${what}`, "train", style("train", "dash")),
      curve(metrics, `test_${what}`, "test", style("test", "solid")),
    ],
    layout: {
      hovermode: "x unified",
      hoverdistance: -1,
      xaxis: epochAxis(metrics),
      yaxis: what === "accuracy" ? { tickformat: "~%" } : { rangemode: "tozero" },
    },
  }));
}

function single(title, key, unit, format, text) {
  const [card, element] = chartCard(title, make("span", { class: "hint" }, unit), "low", `${title}, last ${text(last[key])} ${unit}`);
  byId("curve-charts").append(card);
  chart(element, () => ({
    traces: [
      curve(metrics, key, title, {
        line: { color: colour("other"), width: 2 },
        hovertemplate: `epoch %{x}: %{y:${format}} ${unit}<extra></extra>`,
      }),
    ],
    layout: { hovermode: "x", hoverdistance: -1, xaxis: epochAxis(metrics), yaxis: { rangemode: "tozero" } },
  }));
}

const stepAxis = () => ({
  title: { text: "step" },
  tickformat: ",d",
  ...(statistics.at(-1).step - statistics[0].step < 12 ? { dtick: 1 } : {}),
});

/** By step if the layers were measured, by epoch if not. */
function learningRate() {
  if (!statistics.length) return single("Learning rate", "lr", "in the last step of the epoch", ".3~g", digits3);
  const [card, element] = chartCard("Learning rate", make("span", { class: "hint" }, "by step"), "low", `Learning rate by step, last ${digits3(statistics.at(-1).lr)}`);
  byId("curve-charts").append(card);
  chart(element, () => ({
    traces: [
      {
        x: statistics.map((row) => row.step),
        y: statistics.map((row) => row.lr),
        customdata: statistics.map((row) => row.epoch),
        mode: statistics.length > 1 ? "lines" : "markers",
        line: { color: colour("other"), width: 2 },
        hovertemplate: "epoch %{customdata}, step %{x:,}: %{y:.3~g}<extra></extra>",
      },
    ],
    layout: {
      hovermode: "x",
      hoverdistance: -1,
      xaxis: stepAxis(),
      yaxis: { rangemode: "tozero", tickformat: "~g", exponentformat: "e" },
    },
  }));
}

// --- layers over time -------------------------------------------------------------------------------------------------

const ratio = (one, other) => (isNumber(one) && other > 0 ? one / other : null);

const QUANTITIES = [
  ["Update by weight, mean |Δw| / mean |w|", (layer) => ratio(layer.weight_update, layer.weight), "log"],
  ["Weights, mean |w|", (layer) => layer.weight, "log"],
  ["Updates of weights, mean |Δw|", (layer) => layer.weight_update, "log"],
  ["Biases, mean |b|", (layer) => layer.bias, "log"],
  ["Updates of biases, mean |Δb|", (layer) => layer.bias_update, "log"],
  ["Gradient, L2 norm", (layer) => layer.gradient, "log"],
  ["Outputs, mean", (layer) => layer.activation, "linear"],
  ["Outputs that are zero", (layer) => layer.zeros, "share"],
];

function layersOverTime() {
  if (!statistics.length) {
    byId("layer-chart").replaceWith(empty("No layer has been measured yet."));
    byId("layer-table").parentElement.remove();
    byId("layers").querySelector(".lead").remove();
    return;
  }
  const select = make("select", {}, ...QUANTITIES.map(([name], i) => make("option", { value: i }, name)));
  const [card, element] = chartCard("", null, "tall", "The chosen quantity of every layer by step; a table of the last values follows");
  card.querySelector("h3").replaceWith(make("label", {}, "Show", select));
  byId("layer-chart").append(card);
  const draw = () => {
    const [name, of, axis] = QUANTITIES[select.value];
    return { traces: layerTraces(of, axis), layout: layerLayout(name, axis) };
  };
  chart(element, draw);
  select.addEventListener("change", () => render(element, draw));
  layerTable();
}

function layerTraces(of, axis) {
  const names = [...new Set(statistics.flatMap((row) => Object.keys(row.layers)))];
  const value = (row, name) => (row.layers[name] ? of(row.layers[name]) ?? null : null);
  const measured = names.filter((name) => statistics.some((row) => isNumber(value(row, name))));
  return measured.map((name, i) => ({
    x: statistics.map((row) => row.step),
    y: statistics.map((row) => value(row, name)),
    customdata: statistics.map((row) => row.epoch),
    name: brief(name),
    mode: statistics.length > 1 ? "lines" : "markers",
    line: { color: depthColour(measured.length > 1 ? i / (measured.length - 1) : 0.5), width: 1.8, dash: DASHES[i % DASHES.length] },
    hovertemplate: `<b>${literal(name)}</b>  %{y:${axis === "share" ? ".1%" : ".3~g"}}<br>epoch %{customdata}, step %{x:,}<extra></extra>`,
  }));
}

function layerLayout(name, axis) {
  const yaxis = {
    log: { type: "log", exponentformat: "power", dtick: 1, minor: { ticks: "outside", ticklen: 3, tickcolor: colour("line") } },
    linear: { type: "linear", zeroline: true, zerolinecolor: colour("line") },
    share: { type: "linear", tickformat: "~%", rangemode: "tozero" },
  }[axis];
  const below = { orientation: "h", y: -0.16, x: 0, yanchor: "top" };
  return {
    uirevision: name,
    hovermode: "closest",
    showlegend: true,
    legend: narrow.matches ? below : { y: 1, x: 1.01, tracegroupgap: 0 },
    xaxis: stepAxis(),
    yaxis,
  };
}

const DASHES = ["solid", "dash", "dot"]; // neighbours differ

/** From the first layer to the last: violet, blue, green, yellow, in even steps of lightness, also for colour-blind readers. */
function depthColour(share) {
  const stops = dark.matches
    ? ["#9d7bd8", "#6f9fe8", "#45b8c8", "#5fd08a", "#c6df5a", "#fbe66a"]
    : ["#440f62", "#3f3f96", "#2b6a9b", "#178a80", "#4a9e3a", "#a89000"];
  const at = share * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const parts = [stops[i], stops[i + 1]].map((stop) => [1, 3, 5].map((k) => parseInt(stop.slice(k, k + 2), 16)));
  return `rgb(${parts[0].map((from, k) => Math.round(from + (at - i) * (parts[1][k] - from))).join(",")})`;
}

function layerTable() {
  const { epoch, step, layers } = statistics.at(-1);
  const names = ["layer", "mean |w|", "mean |Δw|", "ratio", "mean |b|", "mean |Δb|", "gradient", "outputs", "zeros"];
  byId("layer-table").append(
    table(
      names.map((name, i) => ({ name, number: i > 0 })),
      Object.entries(layers).map(([name, layer]) => [
        name,
        digits3(layer.weight),
        digits3(layer.weight_update),
        digits3(ratio(layer.weight_update, layer.weight)),
        digits3(layer.bias),
        digits3(layer.bias_update),
        digits3(layer.gradient),
        digits3(layer.activation),
        percent(layer.zeros, 1),
      ]),
      `Step ${count(step)}, in epoch ${count(epoch)}`
    )
  );
}

// --- confusion --------------------------------------------------------------------------------------------------------

function confusion() {
  const { classes, images, right, pairs } = findings;
  const section = byId("confusion");
  section.append(make("p", { class: "lead" }, `${count(right)} of ${count(images)} test images are classified correctly (${percent(right / images)}).`));
  const mixedUp = make("div", { class: "card" }, make("h3", {}, "Most confused classes"));
  mixedUp.append(
    pairs.length
      ? table(
          [{ name: "true" }, { name: "predicted" }, { name: "images", number: true }, { name: "share", number: true }],
          pairs.map((pair) => [classes[pair.label], classes[pair.prediction], count(pair.count), percent(pair.count / pair.of, 1)])
        )
      : make("p", { class: "hint" }, "None: every test image is classified correctly.")
  );
  if (!findings.confusion) {
    section.append(mixedUp);
    return;
  }
  const [card, element] = chartCard(
    "True class by predicted class",
    make("span", { class: "hint" }, "colour: share of the true class"),
    "square",
    "Confusion matrix; the most confused pairs of classes are in a table beside it"
  );
  section.append(make("div", { class: "beside" }, card, mixedUp));
  chart(element, drawConfusion);
}

function drawConfusion() {
  const { classes, confusion } = findings;
  const labelled = classes.length <= 25;
  const totals = confusion.map((row) => row.reduce((sum, n) => sum + n, 0));
  const names = classes.map(literal);
  const places = classes.map((_, i) => i);
  const shares = confusion.map((row, i) => row.map((n) => (totals[i] ? n / totals[i] : 0)));
  const axis = { showgrid: false, ticks: "", tickvals: places, ticktext: classes.map(brief), constrain: "domain", range: [-0.5, classes.length - 0.5] };
  return {
    traces: [
      {
        type: "heatmap",
        z: shares,
        customdata: confusion.map((row, i) => row.map((n, j) => [names[i], names[j], count(n), count(totals[i])])),
        hovertemplate: "true <b>%{customdata[0]}</b><br>predicted <b>%{customdata[1]}</b><br>%{customdata[2]} of %{customdata[3]} images, %{z:.1%}<extra></extra>",
        zmin: 0,
        zmax: 1,
        xgap: labelled ? 1 : 0,
        ygap: labelled ? 1 : 0,
        colorscale: dark.matches
          ? [[0, "#1f2226"], [0.05, "#22384c"], [0.5, "#3f8fd0"], [1, "#b8e0ff"]]
          : [[0, "#f4f6f8"], [0.05, "#d5e6f4"], [0.5, "#5c9fd3"], [1, "#0a4a82"]],
        showscale: false,
      },
      ...(labelled ? [cellTexts(confusion, shares)] : []),
    ],
    layout: {
      hovermode: "closest",
      margin: { l: 56, r: 4, t: 8, b: 56 },
      xaxis: { ...axis, title: { text: "predicted" }, tickangle: labelled ? -45 : -90, showticklabels: classes.length <= 50 },
      yaxis: { ...axis, title: { text: "true" }, range: [classes.length - 0.5, -0.5], scaleanchor: "x", showticklabels: classes.length <= 50 },
    },
  };
}

/** The counts in the cells: in black or white, whichever can be read on a cell's colour. */
function cellTexts(confusion, shares) {
  const cells = confusion.flatMap((row, i) => row.map((n, j) => ({ n, x: j, y: i, share: shares[i][j] }))).filter(({ n }) => n);
  return {
    mode: "text",
    x: cells.map(({ x }) => x),
    y: cells.map(({ y }) => y),
    text: cells.map(({ n }) => count(n)),
    textfont: { color: cells.map(({ share }) => (dark.matches ? share < 0.4 : share > 0.75) ? "#fff" : "#000") },
    hoverinfo: "skip",
  };
}

// --- pictures ---------------------------------------------------------------------------------------------------------

function mistakes() {
  const { classes } = findings;
  const section = byId("mistakes");
  if (!findings.mistakes.length) {
    section.append(empty("None: every test image is classified correctly."));
    return;
  }
  section.append(make("p", { class: "lead" }, "Misclassified test images, those with the highest loss first."));
  const items = findings.mistakes.map((mistake) => {
    const [label, prediction] = [classes[mistake.label], classes[mistake.prediction]];
    const line = (kind, tag, name, chance) =>
      make("div", {}, make("span", { class: `name ${kind}` }, make("span", { class: "tag" }, tag), name), make("span", { class: "chance" }, make("span", { class: "tag" }, "\u00a0"), percent(chance, 1)));
    return make(
      "li",
      {},
      make(
        "figure",
        { class: "card" },
        make("img", { src: mistake.image, alt: `Test image ${mistake.place}: ${label}, predicted ${prediction}` }),
        make(
          "figcaption",
          {},
          line("predicted", "predicted", prediction, mistake.probability),
          line("", "true", label, mistake.labelProbability),
          make("span", { class: "hint" }, `loss ${fixed(mistake.loss, 2)}, image ${count(mistake.place)}`)
        )
      )
    );
  });
  section.append(make("ul", { class: "mistakes" }, ...items));
}

/** Pictures of one size, enlarged so that each pixel is a square, at most 24 wide, and a picture fits into `side`. */
function maps(pictures, [height, width], side, kind, label) {
  const scale = Math.min(24, Math.max(1, Math.floor(side / Math.max(height, width))));
  const size = `width: ${Math.min(side, scale * width)}px; aspect-ratio: ${width} / ${height}`;
  const images = pictures.map((picture, i) => make("img", { src: picture, alt: "", title: `${i + 1}`, style: size }));
  return make("div", { class: `maps ${kind}`, role: "img", "aria-label": label }, ...images);
}

function kernels() {
  const section = byId("kernels");
  if (!findings.kernels) {
    section.append(empty("This network has no convolution."));
    return;
  }
  const { size, pictures } = findings.kernels;
  const told = `${pictures.length} kernels of ${size[0]} × ${size[1]}`;
  section.append(
    make("p", { class: "lead" }, `${told}. Grey is zero; each kernel has its own scale.`),
    make("div", { class: "card" }, maps(pictures, size, 48, "kernels", told))
  );
}

function activations() {
  const { classes, label, outputs } = findings;
  const section = byId("activations");
  const bars = findings.probabilities.flatMap(([place, chance]) => [
    make("dt", {}, classes[place]),
    make("dd", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width: ${100 * chance}%` })),
    make("dd", {}, percent(chance, 1)),
  ]);
  section.append(
    make("p", { class: "lead" }, "The outputs for the first test image. Each layer has its own scale: black is zero, blue negative, orange positive.", make("span", { class: "ramp" })),
    make(
      "div",
      { class: "card" },
      make(
        "div",
        { class: "sample" },
        make("img", { src: findings.image, alt: `The first test image: ${classes[label]}` }),
        make("div", {}, make("h3", {}, `True: ${classes[label]}`), make("p", { class: "hint" }, "Most probable classes:"), make("dl", { class: "bars" }, ...bars))
      )
    ),
    make("div", { class: "card" }, ...outputs.map(output))
  );
}

function output({ layer, kind, shape, least, most, size, maps: pictures }) {
  const part = shape.length === 3 && pictures.length < shape[0] ? `the first ${pictures.length} of ${count(shape[0])} maps, ` : "";
  const facts = `${part}from ${digits3(least)} to ${digits3(most)}`;
  return make(
    "div",
    { class: "layer" },
    make("div", { class: "layer-head" }, make("h3", {}, layer), make("span", {}, kind), make("span", {}, shape.join(" × ")), make("span", {}, facts)),
    maps(pictures, size, ...(shape.length === 3 ? [64, "many"] : [1024, ""]), `Outputs of ${layer}, ${facts}`)
  );
}

// --- the page -----------------------------------------------------------------------------------------------------------

headline();
curves();
layersOverTime();
if (findings) {
  confusion();
  mistakes();
  kernels();
  activations();
} else {
  for (const id of ["confusion", "mistakes", "kernels", "activations"]) {
    byId(id).append(empty(data.note || "Not available yet: this is updated after every epoch."));
  }
}
byId("configuration").append(keysAndValues(data.settings));
byId("environment").append(keysAndValues(data.environment));
