"use strict";

// The arithmetic of the page: forward and backward of each layer, in loops, on arrays (N, C, H, W) of float64. A test compares
// every number with minidl's. The functions of terms say from which other numbers one number was computed, and how.

const engine = (() => {
  // --- arrays ---------------------------------------------------------------------------------------------------------------

  // A flat Float64Array with its shape; at(n, c, h, w) is where an element is.
  const array = (shape, values) => {
    const size = shape.reduce((product, n) => product * n, 1);
    const made = values ? Float64Array.from(values) : new Float64Array(size);
    made.shape = shape;
    return made;
  };
  const like = (x) => array(x.shape);
  const at = (x, ...index) => index.reduce((place, i, axis) => place * x.shape[axis] + i, 0);
  const indexOf = (x, place) => {
    const index = [];
    for (let axis = x.shape.length - 1; axis >= 0; axis--) {
      index.unshift(place % x.shape[axis]);
      place = Math.floor(place / x.shape[axis]);
    }
    return index;
  };
  const range = (from, to) => Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  // The places of a channel, or of a unit, in image n.
  const channel = (x, n, c) => {
    const size = x.length / (x.shape[0] * x.shape[1]);
    return range(0, size).map((p) => (n * x.shape[1] + c) * size + p);
  };

  // --- layers ---------------------------------------------------------------------------------------------------------------

  // Each kind has
  //   forward(layer, x, context)               its output; what backward needs is kept in context
  //   backward(layer, dy, x, y, context)       the gradient of x; gradients of parameters go into context.grads
  //   terms(layer, x, y, context, index)       the terms of an element of y: a list of {factors, from, value}
  //   gradientTerms(layer, dy, x, y, context, index)   the terms of the gradient of an element of x
  //   weightTerms, biasTerms(layer, dy, x, y, context, index, n)   the terms of image n in the gradient of a parameter
  // A term's factors are pairs [letter, number]; from: the elements that it comes from, as {of: "x" | "y" | "w" | "b", place}.

  const biasTerms = (layer, dy, x, y, context, [c], n) =>
    channel(y, n, c).map((place) => ({ factors: [["dy", dy[place]]], from: [{ of: "y", place }], value: dy[place] }));

  const conv = {
    forward({ name, padding }, x, { params }) {
      const [w, b] = [params[`${name}.weight`], params[`${name}.bias`]];
      const [N, C, H, W] = x.shape;
      const [O, , K] = w.shape;
      const y = array([N, O, H + 2 * padding - K + 1, W + 2 * padding - K + 1]);
      for (let place = 0; place < y.length; place++) {
        const [n, o, h, v] = indexOf(y, place);
        y[place] = b[o];
        for (let c = 0; c < C; c++)
          for (let i = 0; i < K; i++)
            for (let j = 0; j < K; j++) {
              const [r, s] = [h + i - padding, v + j - padding];
              if (r >= 0 && r < H && s >= 0 && s < W) y[place] += w[at(w, o, c, i, j)] * x[at(x, n, c, r, s)];
            }
      }
      return y;
    },
    backward({ name, padding }, dy, x, y, { params, grads }) {
      const w = params[`${name}.weight`];
      const [, C, H, W] = x.shape;
      const K = w.shape[2];
      const [dx, dw, db] = [like(x), like(w), like(params[`${name}.bias`])];
      for (let place = 0; place < dy.length; place++) {
        const [n, o, h, v] = indexOf(dy, place);
        db[o] += dy[place];
        for (let c = 0; c < C; c++)
          for (let i = 0; i < K; i++)
            for (let j = 0; j < K; j++) {
              const [r, s] = [h + i - padding, v + j - padding];
              if (r < 0 || r >= H || s < 0 || s >= W) continue;
              dx[at(x, n, c, r, s)] += w[at(w, o, c, i, j)] * dy[place];
              dw[at(w, o, c, i, j)] += x[at(x, n, c, r, s)] * dy[place];
            }
      }
      grads[`${name}.weight`] = dw;
      grads[`${name}.bias`] = db;
      return dx;
    },
    terms({ name, padding }, x, y, { params }, [n, o, h, v]) {
      const [w, b] = [params[`${name}.weight`], params[`${name}.bias`]];
      const [, C, H, W] = x.shape;
      const K = w.shape[2];
      const terms = [{ factors: [["b", b[o]]], from: [{ of: "b", place: o }], value: b[o] }];
      for (const c of range(0, C))
        for (const i of range(0, K))
          for (const j of range(0, K)) {
            const [r, s] = [h + i - padding, v + j - padding];
            if (r < 0 || r >= H || s < 0 || s >= W) continue;
            const [wp, xp] = [at(w, o, c, i, j), at(x, n, c, r, s)];
            const from = [
              { of: "w", place: wp },
              { of: "x", place: xp },
            ];
            terms.push({ factors: [["W", w[wp]], ["x", x[xp]]], from, value: w[wp] * x[xp] });
          }
      return terms;
    },
    gradientTerms({ name, padding }, dy, x, y, { params }, [n, c, r, s]) {
      const w = params[`${name}.weight`];
      const [, O, H, W] = y.shape;
      const K = w.shape[2];
      const terms = [];
      for (const o of range(0, O))
        for (const i of range(0, K))
          for (const j of range(0, K)) {
            const [h, v] = [r - i + padding, s - j + padding];
            if (h < 0 || h >= H || v < 0 || v >= W) continue;
            const [wp, yp] = [at(w, o, c, i, j), at(y, n, o, h, v)];
            const from = [
              { of: "w", place: wp },
              { of: "y", place: yp },
            ];
            terms.push({ factors: [["W", w[wp]], ["dy", dy[yp]]], from, value: w[wp] * dy[yp] });
          }
      return terms;
    },
    // One for each place of the window.
    weightTerms({ padding }, dy, x, y, context, [o, c, i, j], n) {
      const [, , H, W] = x.shape;
      const terms = [];
      for (const h of range(0, y.shape[2]))
        for (const v of range(0, y.shape[3])) {
          const [r, s] = [h + i - padding, v + j - padding];
          if (r < 0 || r >= H || s < 0 || s >= W) continue;
          const [xp, yp] = [at(x, n, c, r, s), at(y, n, o, h, v)];
          const from = [
            { of: "x", place: xp },
            { of: "y", place: yp },
          ];
          terms.push({ factors: [["dy", dy[yp]], ["x", x[xp]]], from, value: dy[yp] * x[xp] });
        }
      return terms;
    },
    biasTerms,
  };

  const relu = {
    forward: (layer, x) => array(x.shape, x.map((value) => Math.max(value, 0))),
    backward: (layer, dy, x, y) => array(x.shape, dy.map((value, place) => (y[place] > 0 ? value : 0))),
    terms(layer, x, y, context, index) {
      const place = at(x, ...index);
      return [{ factors: [["x", x[place]]], from: [{ of: "x", place }], value: y[place], cut: x[place] <= 0 }];
    },
    gradientTerms(layer, dy, x, y, context, index) {
      const place = at(x, ...index);
      const cut = y[place] <= 0;
      return [{ factors: [["dy", dy[place]]], from: [{ of: "y", place }], value: cut ? 0 : dy[place], cut }];
    },
  };

  const lrn = {
    window: ({ size }, C, c) => range(Math.max(0, c - Math.floor(size / 2)), Math.min(C, c + Math.ceil(size / 2))),
    forward(layer, x, context) {
      const { alpha, beta, k, size } = layer;
      const s = like(x);
      const y = like(x);
      for (let place = 0; place < x.length; place++) {
        const [n, c, h, w] = indexOf(x, place);
        const squares = lrn.window(layer, x.shape[1], c).map((j) => x[at(x, n, j, h, w)] ** 2);
        s[place] = k + (alpha / size) * sum(squares);
        y[place] = x[place] / s[place] ** beta;
      }
      context.kept[layer.name] = { s };
      return y;
    },
    backward(layer, dy, x, y, context) {
      const dx = like(x);
      for (let place = 0; place < x.length; place++)
        dx[place] = sum(lrn.gradientTerms(layer, dy, x, y, context, indexOf(x, place)).map((term) => term.value));
      return dx;
    },
    terms(layer, x, y, { kept }, [n, c, h, w]) {
      const place = at(x, n, c, h, w);
      const from = lrn.window(layer, x.shape[1], c).map((j) => ({ of: "x", place: at(x, n, j, h, w) }));
      return [{ factors: [["x", x[place]], ["s", kept[layer.name].s[place]]], from, value: y[place] }];
    },
    // Its own, and one for each channel whose window contains it.
    gradientTerms(layer, dy, x, y, { kept }, [n, c, h, w]) {
      const { alpha, beta, size } = layer;
      const { s } = kept[layer.name];
      const place = at(x, n, c, h, w);
      const own = dy[place] / s[place] ** beta;
      const terms = [{ factors: [["dy", dy[place]], ["s", s[place]]], from: [{ of: "y", place }], value: own }];
      for (const j of lrn.window(layer, x.shape[1], c)) {
        const p = at(x, n, j, h, w);
        const value = ((-2 * alpha * beta) / size) * x[place] * ((dy[p] * x[p]) / s[p] ** (beta + 1));
        const factors = [["x", x[place]], ["dyj", dy[p]], ["xj", x[p]], ["sj", s[p]]];
        terms.push({ factors, from: [{ of: "y", place: p }], value, neighbour: true });
      }
      return terms;
    },
  };

  const pool = {
    forward(layer, x, context) {
      const { kernel, stride } = layer;
      const [N, C, H, W] = x.shape;
      const y = array([N, C, Math.floor((H - kernel) / stride) + 1, Math.floor((W - kernel) / stride) + 1]);
      const argmax = new Int32Array(y.length);
      for (let place = 0; place < y.length; place++) {
        const inside = pool.window(layer, x, indexOf(y, place));
        argmax[place] = inside.reduce((best, p) => (x[p] > x[best] ? p : best));
        y[place] = x[argmax[place]];
      }
      context.kept[layer.name] = { argmax };
      return y;
    },
    window({ kernel, stride }, x, [n, c, h, w]) {
      const places = [];
      for (const i of range(0, kernel))
        for (const j of range(0, kernel)) places.push(at(x, n, c, h * stride + i, w * stride + j));
      return places;
    },
    backward(layer, dy, x, y, { kept }) {
      const dx = like(x);
      dy.forEach((value, place) => (dx[kept[layer.name].argmax[place]] += value));
      return dx;
    },
    terms(layer, x, y, { kept }, index) {
      const best = kept[layer.name].argmax[at(y, ...index)];
      return pool.window(layer, x, index).map((p) => ({
        factors: [["x", x[p]]],
        from: [{ of: "x", place: p }],
        value: x[p],
        cut: p !== best,
      }));
    },
    // One for each window that contains it; the gradient of a window with another maximum is cut.
    gradientTerms(layer, dy, x, y, { kept }, index) {
      const place = at(x, ...index);
      const terms = [];
      for (const h of range(0, y.shape[2]))
        for (const w of range(0, y.shape[3])) {
          const out = [index[0], index[1], h, w];
          if (!pool.window(layer, x, out).includes(place)) continue;
          const p = at(y, ...out);
          const cut = kept[layer.name].argmax[p] !== place;
          terms.push({ factors: [["dy", dy[p]]], from: [{ of: "y", place: p }], value: cut ? 0 : dy[p], cut });
        }
      return terms;
    },
  };

  const batchNorm = {
    places: (x, c) => range(0, x.shape[0]).flatMap((n) => channel(x, n, c)),
    forward({ name, eps }, x, { params, kept }) {
      const y = like(x);
      const xhat = like(x);
      const channels = range(0, x.shape[1]).map((c) => {
        const places = batchNorm.places(x, c);
        const mean = sum(places.map((p) => x[p])) / places.length;
        const variance = sum(places.map((p) => (x[p] - mean) ** 2)) / places.length;
        const std = Math.sqrt(variance + eps);
        for (const p of places) {
          xhat[p] = (x[p] - mean) / std;
          y[p] = params[`${name}.weight`][c] * xhat[p] + params[`${name}.bias`][c];
        }
        return { mean, std };
      });
      kept[name] = { xhat, channels };
      return y;
    },
    backward({ name }, dy, x, y, { params, grads, kept }) {
      const { xhat, channels } = kept[name];
      const [dx, dw, db] = [like(x), like(params[`${name}.weight`]), like(params[`${name}.bias`])];
      channels.forEach((channel, c) => {
        const places = batchNorm.places(x, c);
        db[c] = sum(places.map((p) => dy[p]));
        dw[c] = sum(places.map((p) => dy[p] * xhat[p]));
        channel.meanGrad = db[c] / places.length;
        channel.meanWeighted = dw[c] / places.length;
        const scale = params[`${name}.weight`][c] / channel.std;
        for (const p of places) dx[p] = scale * (dy[p] - channel.meanGrad - xhat[p] * channel.meanWeighted);
      });
      grads[`${name}.weight`] = dw;
      grads[`${name}.bias`] = db;
      return dx;
    },
    terms({ name }, x, y, { params, kept }, index) {
      const [place, c] = [at(x, ...index), index[1]];
      const { mean, std } = kept[name].channels[c];
      const factors = [
        ["x", x[place]],
        ["mean", mean],
        ["std", std],
        ["gamma", params[`${name}.weight`][c]],
        ["beta", params[`${name}.bias`][c]],
      ];
      const from = [
        { of: "x", place },
        { of: "w", place: c },
        { of: "b", place: c },
      ];
      return [{ factors, from, value: y[place] }];
    },
    // The gradient that arrives, minus its mean over the batch, minus its part along xhat.
    gradientTerms({ name }, dy, x, y, { params, kept }, index) {
      const [place, c] = [at(x, ...index), index[1]];
      const { xhat, channels } = kept[name];
      const { std, meanGrad, meanWeighted } = channels[c];
      const gamma = params[`${name}.weight`][c];
      const scale = gamma / std;
      const from = [
        { of: "y", place },
        { of: "w", place: c },
      ];
      return [
        { factors: [["gamma", gamma], ["std", std], ["dy", dy[place]]], from, value: scale * dy[place] },
        { factors: [["mean", meanGrad]], from: [], value: -scale * meanGrad },
        { factors: [["xhat", xhat[place]], ["weighted", meanWeighted]], from: [], value: -scale * xhat[place] * meanWeighted },
      ];
    },
    weightTerms({ name }, dy, x, y, { kept }, [c], n) {
      const { xhat } = kept[name];
      return channel(x, n, c).map((place) => {
        const from = [
          { of: "x", place },
          { of: "y", place },
        ];
        return { factors: [["dy", dy[place]], ["xhat", xhat[place]]], from, value: dy[place] * xhat[place] };
      });
    },
    biasTerms,
  };

  const flatten = {
    forward: (layer, x) => array([x.shape[0], x.length / x.shape[0]], x),
    backward: (layer, dy, x) => array(x.shape, dy),
    terms(layer, x, y, context, index) {
      const place = at(y, ...index);
      return [{ factors: [["x", x[place]]], from: [{ of: "x", place }], value: x[place] }];
    },
    gradientTerms(layer, dy, x, y, context, index) {
      const place = at(x, ...index);
      return [{ factors: [["dy", dy[place]]], from: [{ of: "y", place }], value: dy[place] }];
    },
  };

  const linear = {
    forward({ name }, x, { params }) {
      const [w, b] = [params[`${name}.weight`], params[`${name}.bias`]];
      const y = array([x.shape[0], w.shape[0]]);
      for (let place = 0; place < y.length; place++) {
        const [n, o] = indexOf(y, place);
        y[place] = b[o];
        for (let f = 0; f < x.shape[1]; f++) y[place] += w[at(w, o, f)] * x[at(x, n, f)];
      }
      return y;
    },
    backward({ name }, dy, x, y, { params, grads }) {
      const w = params[`${name}.weight`];
      const [dx, dw, db] = [like(x), like(w), like(params[`${name}.bias`])];
      for (let place = 0; place < dy.length; place++) {
        const [n, o] = indexOf(dy, place);
        db[o] += dy[place];
        for (let f = 0; f < x.shape[1]; f++) {
          dx[at(x, n, f)] += w[at(w, o, f)] * dy[place];
          dw[at(w, o, f)] += x[at(x, n, f)] * dy[place];
        }
      }
      grads[`${name}.weight`] = dw;
      grads[`${name}.bias`] = db;
      return dx;
    },
    terms({ name }, x, y, { params }, [n, o]) {
      const [w, b] = [params[`${name}.weight`], params[`${name}.bias`]];
      const terms = [{ factors: [["b", b[o]]], from: [{ of: "b", place: o }], value: b[o] }];
      for (const f of range(0, x.shape[1])) {
        const [wp, xp] = [at(w, o, f), at(x, n, f)];
        const from = [
          { of: "w", place: wp },
          { of: "x", place: xp },
        ];
        terms.push({ factors: [["W", w[wp]], ["x", x[xp]]], from, value: w[wp] * x[xp] });
      }
      return terms;
    },
    gradientTerms({ name }, dy, x, y, { params }, [n, f]) {
      const w = params[`${name}.weight`];
      return range(0, y.shape[1]).map((o) => {
        const [wp, yp] = [at(w, o, f), at(y, n, o)];
        const from = [
          { of: "w", place: wp },
          { of: "y", place: yp },
        ];
        return { factors: [["W", w[wp]], ["dy", dy[yp]]], from, value: w[wp] * dy[yp] };
      });
    },
    weightTerms(layer, dy, x, y, context, [o, f], n) {
      const [xp, yp] = [at(x, n, f), at(y, n, o)];
      const from = [
        { of: "x", place: xp },
        { of: "y", place: yp },
      ];
      return [{ factors: [["dy", dy[yp]], ["x", x[xp]]], from, value: dy[yp] * x[xp] }];
    },
    biasTerms,
  };

  const dropout = {
    forward: ({ p }, x, { mask }) =>
      array(x.shape, x.map((value, place) => (mask ? (mask[place] ? value / (1 - p) : 0) : value))),
    backward: ({ p }, dy, x, y, { mask }) =>
      array(x.shape, dy.map((value, place) => (mask ? (mask[place] ? value / (1 - p) : 0) : value))),
    terms({ p }, x, y, { mask }, index) {
      const place = at(x, ...index);
      const cut = Boolean(mask) && !mask[place];
      return [{ factors: [["x", x[place]], ["p", mask ? p : 0]], from: [{ of: "x", place }], value: y[place], cut }];
    },
    gradientTerms({ p }, dy, x, y, { mask }, index) {
      const place = at(x, ...index);
      const cut = Boolean(mask) && !mask[place];
      const scale = mask ? 1 / (1 - p) : 1;
      const factors = [["dy", dy[place]], ["p", mask ? p : 0]];
      return [{ factors, from: [{ of: "y", place }], value: cut ? 0 : dy[place] * scale, cut }];
    },
  };

  const KINDS = { conv, relu, lrn, pool, batchNorm, flatten, linear, dropout };

  // --- the network ------------------------------------------------------------------------------------------------------------

  // values[i] is the input of layer i, the last one the output of the last layer; loss: the mean of -log p[label].
  const forward = (layers, params, images, labels, mask) => {
    const context = { params, mask, kept: {}, grads: {} };
    const values = [images];
    for (const layer of layers) values.push(KINDS[layer.kind].forward(layer, values[values.length - 1], context));
    const logits = values[values.length - 1];
    const [N, classes] = logits.shape;
    const probabilities = like(logits);
    let loss = 0;
    for (const n of range(0, N)) {
      const row = range(0, classes).map((o) => logits[at(logits, n, o)]);
      const largest = Math.max(...row);
      const total = sum(row.map((z) => Math.exp(z - largest)));
      row.forEach((z, o) => (probabilities[at(logits, n, o)] = Math.exp(z - largest) / total));
      loss -= (row[labels[n]] - largest - Math.log(total)) / N;
    }
    return { context, values, probabilities, loss, labels };
  };

  // gradients[i] is that of values[i]; those of parameters are in context.grads.
  const backward = (layers, { context, values, probabilities, labels }) => {
    const [N, classes] = probabilities.shape;
    let dy = like(probabilities);
    for (const n of range(0, N))
      for (const o of range(0, classes))
        dy[at(dy, n, o)] = (probabilities[at(dy, n, o)] - (o === labels[n] ? 1 : 0)) / N;
    const gradients = [dy];
    for (let i = layers.length - 1; i >= 0; i--) {
      dy = KINDS[layers[i].kind].backward(layers[i], dy, values[i], values[i + 1], context);
      gradients.unshift(dy);
    }
    return gradients;
  };

  // A step of plain gradient descent.
  const step = (params, grads, lr) => {
    for (const name of Object.keys(grads))
      params[name] = array(params[name].shape, params[name].map((value, p) => value - lr * grads[name][p]));
  };

  return { array, at, indexOf, range, sum, channel, KINDS, forward, backward, step };
})();
