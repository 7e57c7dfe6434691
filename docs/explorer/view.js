"use strict";

// What is seen: the walk through the network, a card for each layer, and the chosen layer with its numbers.

const data = JSON.parse(document.getElementById("data").textContent);
const { words, layers, labels, classes } = data;
const { array, at, indexOf, range, sum, KINDS } = engine;
const SVG = "http://www.w3.org/2000/svg";
const END = layers.length; // where softmax and the loss are

const state = {
  params: {}, // weights by name
  images: null, // (N, 1, 8, 8), as changed
  mask: null, // of dropout: 1 where a unit is kept
  dropping: true,
  image: 0, // which of the batch is shown
  place: 0, // in the walk: forward through the layers and the loss, and back
  focus: null, // {panel, place}: the element that is explained
  held: false, // whether it stays when the pointer goes elsewhere
  losses: [],
};
let result; // engine.forward's
let gradients;

// --- numbers and elements -------------------------------------------------------------------------------------------------

const number = (value) => {
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(2).split("e");
  const text = Math.abs(exponent) > 3 ? `${mantissa}·10<sup>${exponent.replace("+", "")}</sup>` : `${Number(value.toPrecision(3))}`;
  return text.replaceAll("-", "−");
};
const factor = (value) => (value < 0 ? `(${number(value)})` : number(value));
// For a cell: two digits, and no zero before the point.
const short = (value, unit) => {
  value /= unit;
  const rounded = Math.abs(value) < 0.0095 ? 0 : Number(value.toPrecision(2));
  return `${rounded}`.replace("0.", ".").replace("-", "−");
};
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const byId = (id) => document.getElementById(id);

const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.append(...children);
  return element;
};
const draw = (name, attributes, parent) => {
  const element = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  parent.append(element);
  return element;
};
// The largest size, for a scale; 1 if there is nothing but zeros and what rounding left.
const largest = (values) => {
  const most = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return most < 1e-12 ? 1 : most;
};
// Blue above zero and orange below, over whatever is behind: strong for the largest of the array.
const shade = (value, scale, most = 0.75) => {
  const strength = most * Math.min(1, Math.abs(value) / scale) ** 0.7;
  return value < 0 ? `rgb(225 112 10 / ${strength})` : `rgb(24 116 205 / ${strength})`;
};

// --- where the walk is ------------------------------------------------------------------------------------------------------

const STEPS = 2 * END + 2;
const stepAt = (place) => (place <= END ? { layer: place, back: false } : { layer: STEPS - 1 - place, back: true });
const here = () => stepAt(state.place);
const placeOf = (layer, back) => (back ? STEPS - 1 - layer : layer);
const nameOf = (layer) => (layer === END ? "softmax" : layers[layer].name);

const compute = () => {
  result = engine.forward(layers, state.params, state.images, labels, state.dropping ? state.mask : null);
  gradients = engine.backward(layers, result);
};

// --- the cards ----------------------------------------------------------------------------------------------------------------

// Card i shows what goes into layer i; the last one shows the probabilities.
const CARDS = END + 2;
const cardName = (card) => (card === 0 ? "image" : nameOf(card - 1));

const mapsOf = (values, n) => {
  const [, C, H = 1, W = 1] = values.shape;
  const rows = values.shape.length === 4 ? [C, H, W] : [1, Math.ceil(C / Math.ceil(C / 9)), Math.ceil(C / 9)];
  const size = values.length / values.shape[0];
  return { rows, numbers: values.subarray(n * size, (n + 1) * size) };
};

const paint = (canvas, values, n) => {
  const { rows, numbers } = mapsOf(values, n);
  const [C, H, W] = rows;
  const across = C === 1 ? 1 : C > 6 ? 4 : 3;
  const cell = Math.max(3, Math.floor(20 / H));
  canvas.width = across * (W * cell + 3);
  canvas.height = Math.ceil(C / across) * (H * cell + 3);
  const context = canvas.getContext("2d");
  const scale = largest(numbers);
  numbers.forEach((value, p) => {
    const [c, q] = [Math.floor(p / (H * W)), p % (H * W)];
    const [left, top] = [(c % across) * (W * cell + 3), Math.floor(c / across) * (H * cell + 3)];
    context.fillStyle = shade(value, scale, 1);
    context.fillRect(left + (q % W) * cell, top + Math.floor(q / W) * cell, cell, cell);
  });
};

const shapeOf = (card) => (card > END ? `${classes.length}` : result.values[card].shape.slice(1).join(" × "));

const buildCards = () => {
  const row = byId("network");
  for (const card of range(0, CARDS)) {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const button = make("button", { "data-layer": cardName(card), type: "button" });
    button.append(make("span", { class: "name" }, cardName(card)), canvas, make("span", { class: "shape" }));
    button.onclick = () => goTo(placeOf(Math.max(0, card - 1), here().back));
    row.append(button);
  }
};

const showCards = () => {
  const { layer, back } = here();
  [...byId("network").children].forEach((button, card) => {
    const reached = back ? card >= layer : card <= layer + 1;
    const ofGradient = back && reached && card <= END;
    const values = card > END ? result.probabilities : ofGradient ? gradients[card] : result.values[card];
    paint(button.querySelector("canvas"), values, state.image);
    button.classList.toggle("waiting", !reached);
    button.classList.toggle("gradient", ofGradient);
    if (card === layer + 1) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
    button.querySelector(".shape").textContent = shapeOf(card);
    button.setAttribute("aria-label", `${cardName(card)}, ${shapeOf(card)}`);
  });
};

// --- the chosen layer -------------------------------------------------------------------------------------------------------

// A panel draws one array: its cells, by their places in the array, and frames around some of them.
class Panel {
  constructor(of, title, values, shown, layout, size) {
    Object.assign(this, { of, values, shown, layout, size });
    const unit = values === shown ? 1 : 0.01; // gradients are small
    const width = Math.max(...layout.map((cell) => cell.x)) + size;
    const height = Math.max(...layout.map((cell) => cell.y)) + size;
    this.figure = make("figure", { class: "panel", "data-panel": of });
    this.figure.append(make("figcaption", {}));
    this.figure.firstChild.innerHTML = title;
    const holder = make("div", { class: "scroll" });
    this.svg = draw("svg", { viewBox: `-2 -2 ${width + 4} ${height + 4}`, width: width + 4, height: height + 4, tabindex: 0, role: "group" }, holder);
    this.svg.setAttribute("aria-label", this.figure.firstChild.textContent);
    this.figure.append(holder);
    const scale = largest(layout.map((cell) => shown[cell.place]));
    this.cells = new Map();
    if (unit < 1 && size >= 26) this.figure.firstChild.append(` (${words.hundredths})`);
    for (const cell of layout) {
      const { x, y, place } = cell;
      draw("rect", { x, y, width: size, height: size, fill: shade(shown[place], scale), class: "cell", "data-place": place }, this.svg);
      if (size >= 26) draw("text", { x: x + size / 2, y: y + size / 2, class: "number" }, this.svg).textContent = short(shown[place], unit);
      this.cells.set(place, cell);
    }
    this.frames = draw("g", { class: "frames" }, this.svg);
    this.svg.onpointermove = (event) => event.pointerType === "mouse" && !state.held && this.point(event);
    this.svg.onclick = (event) => this.point(event) && hold(true);
    this.svg.onkeydown = (event) => this.key(event);
  }

  point(event) {
    const { place } = event.target.dataset;
    if (place === undefined) return false;
    focus(this, Number(place));
    return true;
  }

  // The arrow keys go to the nearest cell on that side.
  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const now = state.focus?.panel === this ? this.cells.get(state.focus.place) : this.layout[0];
    if (event.key === "Enter" || event.key === " ") hold(!state.held);
    else if (event.key === "Escape") hold(false);
    else if (way) {
      const distance = ({ x, y }) => {
        const [along, aside] = [way[0] * (x - now.x) + way[1] * (y - now.y), Math.abs(way[1] * (x - now.x)) + Math.abs(way[0] * (y - now.y))];
        return along > 0 ? along + 3 * aside : Infinity;
      };
      const next = this.layout.reduce((best, cell) => (distance(cell) < distance(best) ? cell : best));
      focus(this, distance(next) < Infinity ? next.place : now.place);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  frame(place, kind) {
    const cell = this.cells.get(place);
    if (cell) draw("rect", { x: cell.x, y: cell.y, width: this.size, height: this.size, class: kind }, this.frames);
  }

  // A stroke through a cell whose gradient is cut.
  strike(place) {
    const { x, y } = this.cells.get(place);
    draw("line", { x1: x + 2, y1: y + this.size - 2, x2: x + this.size - 2, y2: y + 2, class: "strike" }, this.svg);
  }

  // One frame around several cells: a window.
  frameAll(places, kind) {
    const cells = places.map((place) => this.cells.get(place)).filter(Boolean);
    if (!cells.length) return;
    const [left, top] = [Math.min(...cells.map((cell) => cell.x)), Math.min(...cells.map((cell) => cell.y))];
    const [right, bottom] = [Math.max(...cells.map((cell) => cell.x)), Math.max(...cells.map((cell) => cell.y))];
    const attributes = { x: left, y: top, width: right - left + this.size, height: bottom - top + this.size, class: kind };
    draw("rect", attributes, this.frames);
  }
}

// Where the cells of an array go: maps beside each other, `across` in a row.
const grids = (values, size, across, first = 0, count = values.length) => {
  const shape = values.shape.slice(-2);
  const [H, W] = shape.length === 2 ? shape : [1, shape[0]];
  return range(0, count).map((p) => {
    const [map, q] = [Math.floor(p / (H * W)), p % (H * W)];
    const [column, row] = [map % across, Math.floor(map / across)];
    return { place: first + p, x: column * (W * size + 10) + (q % W) * size, y: row * (H * size + 10) + Math.floor(q / W) * size };
  });
};
const list = (values, size, across, first = 0, count = values.length) =>
  range(0, count).map((p) => ({ place: first + p, x: (p % across) * size, y: Math.floor(p / across) * size }));

const ofImage = (values) => [state.image * (values.length / values.shape[0]), values.length / values.shape[0]];

const panelOf = (of, title, values, shown) => {
  const [first, count] = ofImage(values);
  if (values.shape.length === 2) {
    const across = values.shape[1] > 20 ? 9 : 1;
    return new Panel(of, title, values, shown, list(values, 30, across, first, count), 30);
  }
  const [, C, H] = values.shape;
  const size = C === 1 || H < 5 ? 30 : 15; // large enough for numbers where there are few
  return new Panel(of, title, values, shown, grids(values, size, C === 1 ? 1 : 2, first, count), size);
};

const weightPanel = (title, w, shown) => {
  if (w.shape.length === 4) {
    const size = w.length > 100 ? 9 : 26;
    return new Panel("w", title, w, shown, grids(w, size, w.shape[1] === 1 ? 2 : w.shape[1]), size);
  }
  if (w.shape.length === 2) {
    const size = w.shape[1] > 20 ? 6 : 18;
    return new Panel("w", title, w, shown, list(w, size, w.shape[1]), size);
  }
  return new Panel("w", title, w, shown, list(w, 30, 1), 30);
};

let panels = {};

// How a panel's array is called in the formulas of the layer.
const letterOf = (of) => {
  const { layer } = here();
  const others = layer === END ? { y: "p" } : layers[layer].kind === "batchNorm" ? { w: "γ", b: "β" } : { w: "W" };
  return others[of] ?? of;
};

const buildLayer = () => {
  const { layer, back } = here();
  const said = words.layers[nameOf(layer)];
  byId("layer-name").textContent = fill(back ? words.backward : words.forward, { name: nameOf(layer) });
  byId("layer-what").innerHTML = back ? said.backward : said.forward;
  byId("layer-formula").innerHTML = back ? said.gradient : said.formula;
  const title = (letter, name) => `<b>${back ? "∂L/∂" : ""}${letter}</b> ${name}`;
  const shown = (values, grads) => (back ? grads : values);
  const x = result.values[layer];
  panels = { x: panelOf("x", title("x", words.input), x, shown(x, gradients[layer])) };
  if (layer === END) {
    panels.y = panelOf("y", `<b>${letterOf("y")}</b> ${words.probabilities}`, result.probabilities, result.probabilities);
  } else {
    const { params, grads } = result.context;
    const [w, b] = ["weight", "bias"].map((kind) => `${layers[layer].name}.${kind}`);
    if (params[w]) {
      panels.w = weightPanel(title(letterOf("w"), words.weights), params[w], shown(params[w], grads[w]));
      const bias = shown(params[b], grads[b]);
      panels.b = new Panel("b", title(letterOf("b"), ""), params[b], bias, list(params[b], 30, 1), 30);
    }
    panels.y = panelOf("y", title("y", words.output), result.values[layer + 1], shown(result.values[layer + 1], gradients[layer + 1]));
  }
  if (back && ["relu", "dropout"].includes(layers[layer]?.kind))
    for (const { place } of panels.x.layout) if (termsOf(panels.x, place)[0].cut) panels.x.strike(place);
  byId("panels").replaceChildren(...["x", "w", "b", "y"].filter((of) => panels[of]).map((of) => panels[of].figure));
};

// --- the explanation of an element -----------------------------------------------------------------------------------------

const FIRST = 8; // terms that are written out

// What an element is made of in this direction, if it is computed here.
const termsOf = (panel, place) => {
  const { layer, back } = here();
  if (layer === END || !KINDS[layers[layer].kind].terms) return null;
  const [x, y, dy] = [result.values[layer], result.values[layer + 1], gradients[layer + 1]];
  const kind = KINDS[layers[layer].kind];
  if (!back && panel.of === "y") return kind.terms(layers[layer], x, y, result.context, indexOf(y, place));
  if (back && panel.of === "x") return kind.gradientTerms(layers[layer], dy, x, y, result.context, indexOf(x, place));
  if (back && panel.of === "w" && kind.weightTerms)
    return kind.weightTerms(layers[layer], dy, x, y, state.image, indexOf(panel.values, place));
  return null;
};

// Where an element goes that something else is made of: forward the outputs that an input is in, backward the inputs that the
// gradient of an output comes to.
const goesTo = (panel, place) => {
  const { layer, back } = here();
  if (layer === END || panel.of !== (back ? "y" : "x")) return null;
  const other = panels[back ? "x" : "y"];
  return other.layout
    .map((cell) => cell.place)
    .filter((p) => termsOf(other, p)?.some((term) => !term.cut && term.from.some((from) => from.of === panel.of && from.place === place)));
};

const product = ({ factors }) => factors.map(([, value]) => factor(value)).join("·");

// "a·b + c·d + ... = sum", the largest terms first; what is left is one number.
const written = (terms, total) => {
  const kept = terms.filter((term) => term.value !== 0).sort((one, other) => Math.abs(other.value) - Math.abs(one.value));
  if (!kept.length) return "<b>0</b>";
  const texts = kept.slice(0, FIRST).map(product);
  const rest = kept.slice(FIRST);
  if (rest.length) texts.push(fill(words.further, { count: rest.length, sum: factor(sum(rest.map((term) => term.value))) }));
  const alone = texts.length === 1 && texts[0] === factor(total);
  return `${alone ? "" : `${texts.join(" + ")} = `}<b>${number(total)}</b>`;
};

// The formula with its numbers.
const filled = ({ panel, place }) => {
  const { layer, back } = here();
  const targets = goesTo(panel, place);
  if (targets) return fill(back ? words.comesTo : words.goesInto, { count: targets.length });
  const terms = termsOf(panel, place);
  if (!terms) return "";
  const { kind, name } = layers[layer];
  const said = panel.of === "w" ? null : words.filled[kind]?.[back ? "backward" : "forward"];
  const total = back ? sum(terms.map((term) => term.value)) : panel.values[place];
  if (!said) {
    const text = written(terms, total);
    if (panel.of !== "w") return text;
    return `${text}<br>${fill(words.allImages, { total: number(result.context.grads[`${name}.weight`][place]) })}`;
  }
  const parts = terms.map((term) => factor(term.value));
  const numbers = {
    ...Object.fromEntries((terms[0]?.factors ?? []).map(([letter, value]) => [letter, factor(value)])),
    total: `<b>${number(total)}</b>`,
    own: parts[0],
    second: parts[1],
    third: parts[2],
    others: parts.slice(1).join(" + "),
    list: parts.join(back ? " + " : ", "),
    scale: number(1 / (1 - (state.dropping ? (layers[layer].p ?? 0) : 0))),
  };
  return fill(terms.every((term) => term.cut) ? said.cut : said.text, numbers);
};

const indexText = (panel, place) => {
  const index = indexOf(panel.values, place);
  return (panel.of === "x" || panel.of === "y" ? index.slice(1) : index).join(", ");
};

const gradientOf = ({ panel, place }) => {
  const { layer } = here();
  if (panel.of === "x") return gradients[layer][place];
  if (layer === END) return null;
  if (panel.of === "y") return gradients[layer + 1][place];
  return result.context.grads[`${layers[layer].name}.${panel.of === "w" ? "weight" : "bias"}`][place];
};

const explain = () => {
  const { layer, back } = here();
  Object.values(panels).forEach((panel) => panel.frames.replaceChildren());
  const box = byId("explanation");
  if (!state.focus) {
    box.innerHTML = words.hover;
    byId("change").hidden = true;
    return;
  }
  const { panel, place } = state.focus;
  const head = `${letterOf(panel.of)}[${indexText(panel, place)}]`;
  const gradient = gradientOf(state.focus);
  const numbers = [`<b>${head}</b> = ${number(panel.values[place])}`];
  if (gradient !== null) numbers.push(`<b>∂L/∂${head}</b> = ${number(gradient)}`);
  const text = layer === END ? softmaxText(panel, place) : filled(state.focus);
  box.innerHTML = `<p class="numbers">${numbers.join("<br>")}</p><p class="filled">${text}</p>`;
  showFrames(layer, back);
  showChange(layer);
};

const softmaxText = (panel, place) => {
  const values = panel.of === "x" ? result.values[END] : result.probabilities;
  const [n, o] = indexOf(values, place);
  const p = result.probabilities[place];
  const N = values.shape[0];
  const z = range(0, classes.length).map((c) => result.values[END][at(values, n, c)]);
  const said = here().back ? (o === labels[n] ? words.filled.softmax.right : words.filled.softmax.wrong) : words.filled.softmax.forward;
  return fill(said, { z: number(z[o]), total: number(sum(z.map(Math.exp))), p: number(p), N, value: number(gradients[END][place]), label: classes[labels[n]] });
};

const showFrames = (layer, back) => {
  const { panel, place } = state.focus;
  const terms = termsOf(panel, place);
  const kind = layers[layer]?.kind;
  for (const target of goesTo(panel, place) ?? []) panels[back ? "x" : "y"].frame(target, "from");
  for (const term of terms ?? [])
    for (const from of term.from) panels[from.of]?.frame(from.place, term.cut ? "cut" : "from");
  const window = (out) => KINDS.pool.window(layers[layer], result.values[layer], indexOf(result.values[layer + 1], out));
  if (kind === "pool" && !back && panel.of === "y") panels.x.frameAll(window(place), "window");
  if (kind === "pool" && back && panel.of === "x")
    terms.forEach((term) => panels.x.frameAll(window(term.from[0].place), term.cut ? "window faint" : "window"));
  panel.frame(place, "focus");
};

// --- changing a pixel or a weight --------------------------------------------------------------------------------------------

const changeable = ({ of }, layer) => layer < END && (of === "w" || of === "b" || (of === "x" && layer === 0));

const showChange = (layer) => {
  const allowed = state.held && changeable(state.focus.panel, layer);
  byId("change").hidden = !allowed;
  if (!allowed) return;
  const { panel, place } = state.focus;
  const slider = byId("change-value");
  const reach = panel.of === "x" ? 1 : Math.max(1, 2 * Math.abs(panel.values[place]));
  // While the slider is in use its range stays.
  if (document.activeElement !== slider) Object.assign(slider, { min: panel.of === "x" ? 0 : -reach, max: reach, step: reach / 200 });
  slider.value = panel.values[place];
};

const change = (value) => {
  state.focus.panel.values[state.focus.place] = value;
  update();
};

const hold = (held) => {
  state.held = held;
  document.body.classList.toggle("held", held);
  explain();
};

const focus = (panel, place) => {
  state.focus = { panel, place };
  explain();
};

// --- all of it ----------------------------------------------------------------------------------------------------------------

const show = () => {
  const { layer, back } = here();
  const { panel, place } = state.focus ?? {};
  showCards();
  buildLayer();
  state.focus = panels[panel?.of]?.cells.has(place) ? { panel: panels[panel.of], place } : null;
  explain();
  const slider = byId("place");
  slider.max = STEPS - 1;
  slider.value = state.place;
  slider.setAttribute("aria-valuetext", fill(back ? words.backward : words.forward, { name: nameOf(layer) }));
  byId("back").disabled = state.place === 0;
  byId("next").disabled = state.place === STEPS - 1;
  paint(byId("images").querySelectorAll("canvas")[state.image], state.images, state.image);
  showLoss();
};

const showLoss = () => {
  byId("loss").textContent = result.loss.toPrecision(5);
  const n = state.image;
  const row = result.probabilities.subarray(n * classes.length, (n + 1) * classes.length);
  const best = row.indexOf(Math.max(...row));
  const said = !Number.isFinite(result.loss) ? words.diverged : best === labels[n] ? words.right : words.wrong;
  byId("answer").innerHTML = fill(said, { answer: classes[best], label: classes[labels[n]], p: number(row[best] ?? 0) });
  const svg = byId("losses");
  svg.replaceChildren();
  const finite = state.losses.filter(Number.isFinite);
  const most = Math.max(...finite, 1e-9);
  const points = finite.map((loss, i) => `${(100 * i) / Math.max(1, finite.length - 1)},${28 - (26 * loss) / most}`);
  draw("polyline", { points: points.join(" ") }, svg);
};

const update = () => {
  compute();
  show();
};

// Where motion is wanted, a card's drawing grows into that of its layer.
const goTo = (place) => {
  place = Math.max(0, Math.min(STEPS - 1, place));
  const move = () => {
    state.place = place;
    state.focus = null;
    hold(false);
    show();
    showExample();
  };
  if (!document.startViewTransition || matchMedia("(prefers-reduced-motion: reduce)").matches) return move();
  const card = byId("network").children[stepAt(place).layer + 1];
  const panels = byId("panels");
  card.style.viewTransitionName = "layer";
  const transition = document.startViewTransition(() => {
    card.style.viewTransitionName = "";
    panels.style.viewTransitionName = "layer";
    move();
  });
  transition.finished.finally(() => (panels.style.viewTransitionName = ""));
};

// The element with the largest number, so that there is something to read before anyone points at anything.
const showExample = () => {
  const { back } = here();
  const panel = panels[back ? "x" : "y"];
  const size = ({ place }) => (back ? Math.abs(panel.shown[place]) : panel.shown[place]);
  const most = panel.layout.reduce((best, cell) => (size(cell) > size(best) ? cell : best));
  focus(panel, most.place);
};

const load = (weights) => {
  state.params = Object.fromEntries(Object.entries(data.weights[weights]).map(([name, { shape, values }]) => [name, array(shape, values)]));
  state.images = array(data.images.shape, data.images.values);
  state.mask = Uint8Array.from(data.mask);
  compute();
  state.losses = [result.loss];
};

const buildControls = () => {
  const row = byId("images");
  labels.forEach((label, n) => {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const input = make("input", { type: "radio", name: "image", value: n, "aria-label": `${words.image} ${classes[label]}` });
    input.checked = n === state.image;
    input.onchange = () => {
      state.image = n;
      state.focus = null;
      show();
      showExample();
    };
    row.append(make("label", {}, input, canvas));
    paint(canvas, state.images, n);
  });
  byId("weights").onchange = (event) => {
    load(event.target.value);
    show();
  };
  byId("dropping").onchange = (event) => {
    state.dropping = event.target.checked;
    update();
  };
  byId("redraw").onclick = () => {
    state.mask = state.mask.map(() => Math.random() < 0.5);
    update();
  };
  byId("train").onclick = () => {
    engine.step(state.params, result.context.grads, rate());
    compute();
    state.losses.push(result.loss);
    show();
  };
  byId("reset").onclick = () => {
    load(byId("weights").value);
    show();
  };
  byId("rate").oninput = showRate;
  showRate();
  byId("back").onclick = () => goTo(state.place - 1);
  byId("next").onclick = () => goTo(state.place + 1);
  byId("place").oninput = (event) => goTo(Number(event.target.value));
  byId("change-value").oninput = (event) => change(Number(event.target.value));
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") goTo(state.place - 1);
    if (event.key === "ArrowRight") goTo(state.place + 1);
  });
};

const rate = () => 10 ** Number(byId("rate").value);
const showRate = () => (byId("rate-value").innerHTML = number(Number(rate().toPrecision(2))));

byId("home").hidden = location.pathname.includes("/explorer/pages/"); // where the rest of the site is not beside it
load("trained");
buildControls();
buildCards();
show();
showExample();

// All numbers, for whoever wants to compare them.
window.explorer = {
  state,
  numbers: () => ({
    loss: result.loss,
    probabilities: [...result.probabilities],
    values: result.values.map((values) => [...values]),
    gradients: gradients.map((values) => [...values]),
    grads: Object.fromEntries(Object.entries(result.context.grads).map(([name, values]) => [name, [...values]])),
    params: Object.fromEntries(Object.entries(state.params).map(([name, values]) => [name, [...values]])),
  }),
};
