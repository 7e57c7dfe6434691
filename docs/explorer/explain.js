// The explanation of the chosen element: its terms, the elements that depend on it, and the effect of a change.

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const plural = (texts, count, values = {}) => fill(texts[new Intl.PluralRules(words.lang).select(count)], { count, ...values });

const isParameter = ({ of }) => of === "w" || of === "b";

// Dropout that is switched off passes everything on.
const isOff = (layer) => layers[layer]?.kind === "dropout" && !state.dropping;

// --- its terms, and the elements that depend on it ----------------------------------------------------------------------------

// The terms of an element in this direction; null if this layer does not compute it.
const termsOf = (panel, place) => {
  const { layer, back } = here();
  if (layer === END || panel.of === (back ? "y" : "x") || (!back && isParameter(panel))) return null;
  const kind = KINDS[layers[layer].kind];
  const [x, y, dy] = [result.values[layer], result.values[layer + 1], gradients[layer + 1]];
  const index = indexOf(panel.values, place);
  if (!back) return kind.terms(layers[layer], x, y, result.context, index);
  const terms = { x: kind.gradientTerms, w: kind.weightTerms, b: kind.biasTerms }[panel.of];
  return terms(layers[layer], dy, x, y, result.context, index, state.image);
};

// The places that depend on an element: forward, the outputs that are computed from an input or a parameter; backward, the inputs
// whose gradients are computed from that of an output. Through mean and std that is the whole channel.
const goesTo = (panel, place) => {
  const { layer, back } = here();
  if (layer === END || (panel.of === "y") !== back) return null;
  const target = panels[back ? "x" : "y"];
  if (isWide(panel)) return channel(target.values, state.image, indexOf(panel.values, place)[1]);
  const uses = (term) => !term.cut && term.from.some((from) => from.of === panel.of && from.place === place);
  return target.layout.map((cell) => cell.place).filter((p) => termsOf(target, p).some(uses));
};
const isWide = (panel) => layers[here().layer]?.kind === "batchNorm" && !isParameter(panel);

const goesText = (panel, count) => {
  const { layer, back } = here();
  const direction = back ? "backward" : "forward";
  if (isWide(panel)) return words.wholeChannel[direction];
  if (!count) return words.nowhere[layers[layer].kind];
  return plural(isParameter(panel) ? words.usedIn : words.goesTo[direction], count);
};

// --- its formula, with the numbers --------------------------------------------------------------------------------------------

const FIRST = 8; // terms that are written out, unless they are below a thousandth of the largest

const product = ({ factors }) => factors.map(([, value]) => factor(value)).join("·");

// "a·b + c·d + ... = sum", the largest terms first; what is left is one number.
const written = (terms, total) => {
  const kept = terms.filter((term) => term.value !== 0).sort((one, other) => Math.abs(other.value) - Math.abs(one.value));
  if (!kept.length) return `${words.allZero}: <b>0</b>`;
  const large = kept.slice(0, FIRST).filter((term) => Math.abs(term.value) >= Math.abs(kept[0].value) / 1000);
  const texts = large.map(product);
  const rest = kept.slice(large.length);
  if (rest.length) texts.push(plural(words.further, rest.length, { sum: factor(sum(rest.map((term) => term.value))) }));
  return `${texts.join(" + ")} = <b>${number(total)}</b>`;
};

// A parameter's gradient is a sum over the images; written out is what this one contributes.
const parameterText = (layer, panel, place, terms) => {
  const own = written(terms, sum(terms.map((term) => term.value)));
  const all = fill(words.allImages, { total: number(panel.gradients[place]) });
  const zero = panel.of === "b" && layers[layer + 1]?.kind === "batchNorm";
  return `${own}<br>${all}${zero ? `<br>${words.beforeBatchNorm}` : ""}`;
};

// In the gradient of local response normalisation.
const neighbour = ({ factors }) => {
  const { dyj, xj, sj } = Object.fromEntries(factors);
  return `${factor(dyj)}·${number(xj)}/${number(sj)}<sup>1.75</sup>`;
};

const filled = (panel, place) => {
  const { layer, back } = here();
  const targets = goesTo(panel, place);
  if (targets) return goesText(panel, targets.length);
  const terms = termsOf(panel, place);
  if (isParameter(panel)) return parameterText(layer, panel, place, terms);
  const total = panel.shown[place];
  const kind = isOff(layer) ? "flatten" : layers[layer].kind; // both pass the numbers on
  const said = words.filled[kind]?.[back ? "backward" : "forward"]?.[terms.every((term) => term.cut) ? "cut" : "text"];
  if (!said) return written(terms, total);
  const numbers = {
    value: number(panel.values[place]),
    ...Object.fromEntries(terms.flatMap((term) => term.factors).map(([letter, value]) => [letter, factor(value)])),
    total: `<b>${number(total)}</b>`,
    list: terms.map((term) => factor(term.value)).join(", "),
    neighbours: terms.filter((term) => term.neighbour).map(neighbour).join(" + "),
    scale: number(1 / (1 - (layers[layer].p ?? 0))),
  };
  return fill(said, numbers);
};

const softmaxText = (place) => {
  const logits = result.values[END];
  const [n, o] = indexOf(logits, place);
  const z = range(0, classes.length).map((c) => logits[at(logits, n, c)]);
  const most = Math.max(...z);
  const total = sum(z.map((value) => Math.exp(value - most)));
  const { forward, right, wrong } = words.filled.softmax;
  return fill(here().back ? (o === labels[n] ? right : wrong) : forward, {
    z: number(z[o]),
    most: factor(most),
    total: number(total),
    p: number(result.probabilities[place]),
    N: labels.length,
    value: number(gradients[END][place]),
    label: classes[labels[n]],
    right: number(result.probabilities[at(logits, n, labels[n])]),
    own: number(most + Math.log(total) - z[labels[n]]),
  });
};

// --- the explanation and the frames -------------------------------------------------------------------------------------------

const indexText = (panel, place) => {
  const index = indexOf(panel.values, place);
  return (isParameter(panel) ? index : index.slice(1)).join(", ");
};

// In backward a panel shows its gradients; or the values, where the formula of the chosen element takes these.
const showsGradient = ({ of, gradients }) => {
  const chosen = state.focus.panel.of;
  return here().back && gradients !== null && (of === "y" || of === "b" || of === chosen || (of === "x" && chosen !== "w"));
};

const explain = () => {
  const { layer, back } = here();
  const { panel, place } = state.focus;
  const [, c] = indexOf(panel.values, place);
  for (const shown of Object.values(panels)) {
    shown.show(showsGradient(shown));
    shown.figure.hidden = (shown.channel ?? c) !== c;
  }
  const head = `${panel.letter}[${indexText(panel, place)}]`;
  const numbers = [`<b>${head}</b> = ${number(panel.values[place])}`];
  if (back && panel.gradients) numbers.push(`<b>∂L/∂${head}</b> = ${number(panel.gradients[place])}`);
  const box = byId("explanation");
  box.setAttribute("aria-live", state.held || byId("panels").querySelector(":focus-visible") ? "polite" : "off");
  const text = layer === END ? softmaxText(place) : filled(panel, place);
  box.innerHTML = `<p>${numbers.join("<br>")}</p><p class="filled">${text}</p>`;
  showFrames(layer, back);
  showChange(layer);
};

const frame = (of, places, kind) => Object.values(panels).forEach((panel) => panel.of === of && panel.frame(places, kind));

const showFrames = (layer, back) => {
  const { panel, place } = state.focus;
  const kind = layers[layer]?.kind;
  const terms = termsOf(panel, place) ?? [];
  Object.values(panels).forEach((panel) => panel.frames.replaceChildren());
  for (const target of goesTo(panel, place) ?? []) frame(back ? "x" : "y", [target], "from");
  for (const term of terms) for (const from of term.from) frame(from.of, [from.place], term.cut ? "cut" : "from");
  const window = (out) => KINDS.pool.window(layers[layer], result.values[layer], indexOf(result.values[layer + 1], out));
  if (kind === "pool" && panel.of === "y") frame("x", window(place), "window");
  if (kind === "pool" && back && panel.of === "x")
    terms.forEach((term) => frame("x", window(term.from[0].place), term.cut ? "window faint" : "window"));
  if (isWide(panel)) {
    const source = back ? "y" : "x";
    frame(source, channel(panels[source].values, state.image, indexOf(panel.values, place)[1]), "window");
  }
  frame(panel.of, [place], "focus");
};

// --- changing a pixel or a parameter -------------------------------------------------------------------------------------------

const isChangeable = (panel, layer) => isParameter(panel) || (panel.of === "x" && layer === 0);

// The change of the loss that the gradient predicts, beside the real one.
const showChange = (layer) => {
  const { panel, place } = state.focus;
  const allowed = state.held && isChangeable(panel, layer);
  byId("change").hidden = !allowed;
  if (!allowed) return;
  const slider = byId("change-value");
  const value = panel.values[place];
  const reach = panel.of === "x" ? 1 : Math.max(1, 2 * Math.abs(value));
  // While the slider is in use its range stays.
  const min = panel.of === "x" ? 0 : -reach;
  if (document.activeElement !== slider) Object.assign(slider, { min, max: reach, step: reach / 200 });
  slider.value = value;
  const { edit } = state;
  const changes = edit && {
    delta: value - edit.value,
    predicted: edit.gradient * (value - edit.value),
    real: result.loss - edit.loss,
  };
  byId("prediction").innerHTML = edit
    ? fill(words.predicted, Object.fromEntries(Object.entries(changes).map(([name, change]) => [name, signed(change)])))
    : words.tryIt;
};
const signed = (value) => `${value > 0 ? "+" : ""}${number(value)}`;
