// Drawings of numbers and arrays. The element that is chosen in a drawing is passed to `focus` and `hold`.

const SVG = "http://www.w3.org/2000/svg";

// --- numbers ----------------------------------------------------------------------------------------------------------------

const NOISE = 1e-12; // smaller numbers are zero but for rounding

const number = (value) => {
  if (Math.abs(value) < NOISE) return "0";
  if (!Number.isFinite(value)) return `${value}`.replace("Infinity", "∞").replace("-", "−");
  const [mantissa, exponent] = value.toExponential(2).split("e");
  const power = `${mantissa}·10<sup>${exponent.replace("+", "")}</sup>`;
  const text = Math.abs(exponent) > 3 ? power : `${Number(value.toPrecision(3))}`;
  return text.replaceAll("-", "−");
};
const factor = (value) => (value < 0 || number(value).includes("·") ? `(${number(value)})` : number(value));
// For a cell: two digits, no zero before the point, and 1e3 for a thousand.
const short = (value) => {
  if (!Number.isFinite(value)) return number(value);
  const size = Math.abs(value);
  const rounded = Number(size < 1 ? value.toFixed(2) : value.toPrecision(2)) || 0;
  const text = size >= 999.5 ? value.toExponential(0).replace("+", "") : `${rounded}`;
  return text.replace("0.", ".").replace("-", "−");
};
// The largest size, for a scale; 1 if all numbers are zero but for rounding.
const largest = (values) => {
  const most = values.reduce((most, value) => (Number.isFinite(value) ? Math.max(most, Math.abs(value)) : most), 0);
  return most < NOISE ? 1 : most;
};
// The power of ten by which a panel of gradients divides its numbers: the largest then has one digit before the point.
const unitOf = (most) => 10 ** Math.floor(Math.log10(most));
// Blue above zero and orange below, transparent: strongest for the largest number of the array. Grey: NaN or infinite.
const shade = (value, scale, most = 0.75) => {
  if (!Number.isFinite(value)) return "rgb(128 128 128 / 0.5)";
  const strength = most * Math.min(1, Math.abs(value) / scale) ** 0.7;
  return value < 0 ? `rgb(225 112 10 / ${strength})` : `rgb(24 116 205 / ${strength})`;
};

// --- elements ---------------------------------------------------------------------------------------------------------------

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

// --- where the cells go -----------------------------------------------------------------------------------------------------

// Maps beside each other, `across` in a row: a list of {place, x, y}, the places counted from `first`.
const grids = ([H, W], size, gap, across, count, first = 0) =>
  range(0, count).map((p) => {
    const [map, q] = [Math.floor(p / (H * W)), p % (H * W)];
    const x = (map % across) * (W * size + gap) + (q % W) * size;
    const y = Math.floor(map / across) * (H * size + gap) + Math.floor(q / W) * size;
    return { place: first + p, x, y };
  });

// Units in a column, or in more if they are many.
const folded = (units) => {
  const columns = units > 20 ? 9 : units > 10 ? 2 : 1;
  return [units / columns, columns];
};

// The input or output of a layer for image n: its maps, or its units. A card and a panel arrange them alike.
const activations = (values, n, size, gap) => {
  const [, C, ...map] = values.shape;
  const count = values.length / values.shape[0];
  const across = map.length === 0 || C === 1 ? 1 : C > 6 ? 4 : 3;
  return grids(map.length ? map : folded(C), size, gap, across, count, n * count);
};

const extent = (layout, size) => ["x", "y"].map((axis) => Math.max(...layout.map((cell) => cell[axis])) + size);

// The small drawing of a card.
const paint = (canvas, values, n) => {
  const [, C, H] = values.shape;
  const size = H === undefined ? (C > 20 ? 5 : 3) : C === 1 ? 5 : H > 3 ? 3 : 6;
  const layout = activations(values, n, size, 3);
  [canvas.width, canvas.height] = extent(layout, size);
  const context = canvas.getContext("2d");
  const scale = largest(layout.map(({ place }) => values[place]));
  for (const { place, x, y } of layout) {
    context.fillStyle = shade(values[place], scale, 1);
    context.fillRect(x, y, size, size);
  }
};

// --- panels -----------------------------------------------------------------------------------------------------------------

const READABLE = 26; // pixels: a cell of this size has its number in it

// The drawing of one array, or of one channel of it: its cells, by their places in the array, and frames around some of them. It
// shows the array itself or its gradient.
class Panel {
  constructor({ of, letter, name, values, gradients, layout, size, channel, notes = [] }) {
    Object.assign(this, { of, letter, name, values, gradients, layout, size, channel });
    const [width, height] = extent(layout, size);
    const box = { width: width + 4 + (notes.length ? 66 : 0), height: height + 4 };
    this.caption = make("figcaption");
    const holder = make("div", { class: "scroll" });
    this.figure = make("figure", { class: "panel", "data-panel": `${of}${channel ?? ""}` }, this.caption, holder);
    this.svg = draw("svg", { viewBox: `-2 -2 ${box.width} ${box.height}`, ...box, tabindex: 0, role: "group" }, holder);
    this.cells = new Map();
    layout.forEach(({ place, x, y }, i) => {
      const rect = draw("rect", { x, y, width: size, height: size, class: "cell", "data-place": place }, this.svg);
      const text = size >= READABLE ? draw("text", { x: x + size / 2, y: y + size / 2, class: "number" }, this.svg) : null;
      if (notes[i]) draw("text", { x: x + size + 6, y: y + size / 2, class: "note" }, this.svg).textContent = notes[i];
      this.cells.set(place, { place, x, y, rect, text });
    });
    this.frames = draw("g", { class: "frames" }, this.svg);
    this.svg.onpointermove = (event) => event.pointerType === "mouse" && !state.held && this.point(event);
    this.svg.onclick = (event) => this.click(event);
    this.svg.onkeydown = (event) => this.key(event);
    this.svg.onfocus = () => !state.held && this.svg.matches(":focus-visible") && this.enter();
    this.show(false);
  }

  show(gradient) {
    const shown = gradient ? this.gradients : this.values;
    if (this.shown === shown) return;
    this.shown = shown;
    const scale = largest(this.layout.map(({ place }) => shown[place]));
    const unit = gradient && this.size >= READABLE ? unitOf(scale) : 1;
    const letter = `<b>${gradient ? "∂L/∂" : ""}${this.letter}</b>`;
    const times = unit === 1 ? "" : `× ${number(unit).replace("1.00·", "")}`;
    this.caption.innerHTML = [letter, this.name, times].map((part) => `<span>${part}</span>`).join(" ");
    this.svg.setAttribute("aria-label", this.caption.textContent.trim());
    for (const { place, rect, text } of this.cells.values()) {
      rect.setAttribute("fill", shade(shown[place], scale));
      if (text) text.textContent = short(shown[place] / unit);
    }
  }

  get chosen() {
    return state.focus?.panel.of === this.of;
  }

  choose(place) {
    focus(panels[this.of], place);
  }

  // The first cell, if none of this panel is chosen yet.
  enter() {
    if (!this.chosen) this.choose(this.layout[0].place);
  }

  point({ target: { dataset } }) {
    if (dataset.place) this.choose(Number(dataset.place));
  }

  // Holds a cell; the held cell is let go.
  click({ target: { dataset } }) {
    if (!dataset.place) return;
    const again = state.held && this.chosen && state.focus.place === Number(dataset.place);
    this.choose(Number(dataset.place));
    hold(!again);
  }

  // The arrow keys go to the nearest cell on that side.
  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const enters = !this.chosen;
    if (!way && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    this.enter();
    if (!way) hold(enters || !state.held);
    if (!way || enters) return;
    const now = this.cells.get(state.focus.place);
    const distance = ({ x, y }) => {
      const along = way[0] * (x - now.x) + way[1] * (y - now.y);
      const aside = Math.abs(way[1] * (x - now.x)) + Math.abs(way[0] * (y - now.y));
      return along > 0 ? along + 3 * aside : Infinity;
    };
    const next = this.layout.reduce((best, cell) => (distance(cell) < distance(best) ? cell : best));
    if (distance(next) < Infinity) this.choose(next.place);
  }

  // One frame around those of these cells that are here.
  frame(places, kind) {
    const cells = places.filter((place) => this.cells.has(place)).map((place) => this.cells.get(place));
    if (!cells.length) return;
    const [left, top] = ["x", "y"].map((axis) => Math.min(...cells.map((cell) => cell[axis])));
    const [right, bottom] = extent(cells, this.size);
    draw("rect", { x: left, y: top, width: right - left, height: bottom - top, class: kind }, this.frames);
  }

  // A stroke through a cell whose gradient is cut.
  strike(place) {
    const { x, y } = this.cells.get(place);
    draw("line", { x1: x + 2, y1: y + this.size - 2, x2: x + this.size - 2, y2: y + 2, class: "strike" }, this.svg);
  }
}
