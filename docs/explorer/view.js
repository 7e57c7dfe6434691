// The view: the walk through the network, a card for each layer, and the chosen layer with its numbers.

const data = JSON.parse(document.getElementById("data").textContent);
const { words, layers, labels, classes } = data;
const { array, at, indexOf, range, sum, channel, KINDS } = engine;
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
  edit: null, // of a held element that is being changed: its value, its gradient and the loss before
  losses: [],
};
let result; // engine.forward's
let gradients;

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

// Card i shows the input of layer i; the last one shows the probabilities.
const CARDS = END + 2;
const cardName = (card) => (card === 0 ? "image" : nameOf(card - 1));

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
  const row = byId("network");
  [...row.children].forEach((button, card) => {
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
  const current = row.querySelector("[aria-current]");
  row.scrollLeft = current.offsetLeft - (row.clientWidth - current.clientWidth) / 2;
};

// --- the chosen layer -------------------------------------------------------------------------------------------------------

let panels = {};

// The letters of a layer's arrays in its formulas.
const lettersOf = (layer) => {
  if (layer === END) return { x: "x", y: "p" };
  return layers[layer].kind === "batchNorm" ? { x: "x", w: "γ", b: "β", y: "y" } : { x: "x", w: "W", b: "b", y: "y" };
};

const activationPanel = (options) => {
  const [, C, H] = options.values.shape;
  const size = H > 3 && C > 1 ? 13 : READABLE;
  return new Panel({ ...options, layout: activations(options.values, state.image, size, 10), size });
};

const parameterPanel = (options) => {
  const { shape, length } = options.values;
  const size = shape.length === 1 ? READABLE : shape.length === 4 ? (length > 100 ? 9 : READABLE) : shape[1] > 20 ? 6 : 18;
  const map = shape.length === 1 ? folded(length) : shape.slice(-2);
  const across = shape.length === 4 && shape[1] > 1 ? shape[1] : 2; // a kernel of several channels is a row
  return new Panel({ ...options, layout: grids(map, size, size < READABLE ? 6 : 10, across, length), size });
};

// The values of one channel, large enough to be read.
const channelPanel = (options, c) => {
  const [, , H, W] = options.values.shape;
  const layout = grids([H, W], READABLE, 0, 1, H * W, at(options.values, state.image, c, 0, 0));
  const name = fill(words.channel, { name: options.name, channel: c });
  return new Panel({ ...options, name, gradients: null, layout, size: READABLE, channel: c });
};

const buildLayer = () => {
  const { layer, back } = here();
  const said = isOff(layer) ? words.dropoutOff : words.layers[nameOf(layer)];
  byId("layer-name").textContent = fill(back ? words.backward : words.forward, { name: nameOf(layer) });
  byId("turn").textContent = back ? words.showForward : words.showBackward;
  byId("layer-what").innerHTML = back ? said.backward : said.forward;
  const formulas = back ? [said.gradient, said.weight, said.bias] : [said.formula];
  const whole = (formula) => formula.replace(/[^\s<>]*\[.*?\]|∂L\/∂./g, "<var>$&</var>"); // no line ends within these
  byId("layer-formula").innerHTML = formulas.map((formula) => (formula ? `<span>${whole(formula)}</span>` : "")).join("");
  const letters = lettersOf(layer);
  const options = (of, name, values, gradients) => ({ of, letter: letters[of], name, values, gradients });
  if (layer === END) {
    const notes = classes.map((name, o) => (o === labels[state.image] ? `${name} ← ${words.label}` : name));
    panels = {
      x: activationPanel({ ...options("x", words.logits, result.values[layer], gradients[layer]), notes }),
      y: activationPanel({ ...options("y", words.probabilities, result.probabilities, null), notes }),
    };
  } else {
    const input = options("x", words.input, result.values[layer], gradients[layer]);
    panels = { x: activationPanel(input) };
    // To see the maximum of a window. Only the channel of the chosen element is shown.
    if (back && layers[layer].kind === "pool")
      for (const c of range(0, input.values.shape[1])) panels[`x${c}`] = channelPanel(input, c);
    const { params, grads } = result.context;
    const [w, b] = ["weight", "bias"].map((kind) => `${layers[layer].name}.${kind}`);
    if (params[w]) {
      panels.w = parameterPanel(options("w", words.weights, params[w], grads[w]));
      panels.b = parameterPanel(options("b", words.bias, params[b], grads[b]));
    }
    panels.y = activationPanel(options("y", words.output, result.values[layer + 1], gradients[layer + 1]));
  }
  if (back && ["relu", "dropout"].includes(layers[layer]?.kind))
    for (const { place } of panels.x.layout) if (termsOf(panels.x, place)[0].cut) panels.x.strike(place);
  byId("panels").replaceChildren(...Object.values(panels).map((panel) => panel.figure));
};

// The element with the largest number, so that there is an explanation from the start.
const example = () => {
  const { back } = here();
  const panel = panels[back ? "x" : "y"];
  const size = ({ place }) => (back ? Math.abs(panel.gradients[place]) : panel.values[place]);
  return { panel, place: panel.layout.reduce((best, cell) => (size(cell) > size(best) ? cell : best)).place };
};

// --- the chosen element -----------------------------------------------------------------------------------------------------

const focus = (panel, place) => {
  if (state.focus?.panel.of !== panel.of || state.focus.place !== place) state.edit = null;
  state.focus = { panel, place };
  explain();
};

const setHeld = (held) => {
  state.held = held;
  document.body.classList.toggle("held", held);
};

const hold = (held) => {
  state.edit = null;
  if (byId("change").contains(document.activeElement)) state.focus.panel.svg.focus();
  setHeld(held);
  explain();
};

const leave = () => {
  setHeld(false);
  state.focus = null;
};

// The state before the first change is kept, to show the effect of all changes together on the loss.
const change = (value) => {
  const { panel, place } = state.focus;
  const again = state.edit !== null;
  state.edit ??= { value: panel.values[place], gradient: panel.gradients[place], loss: result.loss };
  panel.values[place] = value;
  compute();
  if (again) state.losses.pop();
  state.losses.push(result.loss);
  show();
};

// --- all of it ----------------------------------------------------------------------------------------------------------------

const show = () => {
  const { layer, back } = here();
  showCards();
  buildLayer();
  const kept = panels[state.focus?.panel.of];
  const { panel, place } = kept?.cells.has(state.focus.place) ? { panel: kept, place: state.focus.place } : example();
  focus(panel, place);
  byId("layer").classList.toggle("back", back);
  showPlace(fill(back ? words.backward : words.forward, { name: nameOf(layer) }));
  byId("images").querySelectorAll("canvas").forEach((canvas, n) => paint(canvas, state.images, n));
  byId("dropping").checked = state.dropping;
  byId("redraw").disabled = !state.dropping;
  showLoss();
};

const showPlace = (name) => {
  const [slider, back, next] = ["place", "back", "next"].map(byId);
  Object.assign(slider, { max: STEPS - 1, value: state.place });
  slider.setAttribute("aria-valuetext", name);
  byId("step").textContent = fill(words.step, { step: state.place + 1, count: STEPS });
  const focused = document.activeElement;
  back.disabled = state.place === 0;
  next.disabled = state.place === STEPS - 1;
  if (focused.disabled) (focused === next ? back : next).focus();
};

const showLoss = () => {
  byId("loss").textContent = result.loss.toPrecision(4);
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
  state.edit = null;
  compute();
  state.losses.push(result.loss);
  show();
};

const goTo = (place) => {
  state.place = Math.max(0, Math.min(STEPS - 1, place));
  leave();
  show();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) grow();
};

// The drawing of a card grows into that of its layer.
const grow = () => {
  const { figure } = panels.y;
  const card = byId("network").querySelector("[aria-current] canvas");
  const [from, to] = [card, figure].map((element) => element.getBoundingClientRect());
  const shift = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
  const transform = `${shift} scale(${from.width / to.width}, ${from.height / to.height})`;
  const transformOrigin = "0 0";
  const start = { transformOrigin, transform, opacity: 0.4 };
  figure.animate([start, { transformOrigin }], { duration: 350, easing: "ease-out" });
};

const load = () => {
  const weights = data.weights[byId("weights").value];
  state.params = Object.fromEntries(Object.entries(weights).map(([name, { shape, values }]) => [name, array(shape, values)]));
  state.losses = [];
  update();
};

const reset = () => {
  state.images = array(data.images.shape, data.images.values);
  state.mask = Uint8Array.from(data.mask);
  state.dropping = true;
  byId("rate").value = byId("rate").defaultValue;
  showRate();
  leave();
  load();
};

const buildControls = () => {
  labels.forEach((label, n) => {
    const input = make("input", { type: "radio", name: "image", value: n, "aria-label": `${words.image} ${classes[label]}` });
    input.checked = n === state.image;
    input.onchange = () => {
      state.image = n;
      leave();
      show();
    };
    byId("images").append(make("label", {}, input, make("canvas", { "aria-hidden": "true" })));
  });
  byId("weights").onchange = load;
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
    update();
  };
  byId("reset").onclick = reset;
  byId("rate").oninput = showRate;
  byId("back").onclick = () => goTo(state.place - 1);
  byId("turn").onclick = () => goTo(STEPS - 1 - state.place);
  byId("next").onclick = () => goTo(state.place + 1);
  byId("place").oninput = (event) => goTo(Number(event.target.value));
  byId("change-value").oninput = (event) => change(Number(event.target.value));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hold(false);
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") goTo(state.place - 1);
    if (event.key === "ArrowRight") goTo(state.place + 1);
  });
};

const rate = () => 10 ** Number(byId("rate").value);
const showRate = () => (byId("rate-value").innerHTML = number(Number(rate().toPrecision(2))));

// If the window is narrow, the settings are folded up.
const wide = matchMedia("(min-width: 641px)");
wide.onchange = () => (byId("settings").open = wide.matches);
wide.onchange();
byId("home").hidden = location.pathname.includes("/explorer/pages/"); // where the rest of the site is not beside it
buildControls();
buildCards();
reset();

// All numbers, for tests.
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
