"""The twelve exercises: the calls of their functions, and the known mistakes, each with the gradient that it gives."""

import numpy as np
from diagnosis import Case, Exercise, Mistake, Place
from numpy.lib.stride_tricks import sliding_window_view

import minidl.functional as F
from minidl import Tensor


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Distinct numbers between -1 and 2 in random order."""
    size = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(np.linspace(-1, 2, size)).reshape(shape)


def by(fn, *arrays, **options) -> np.ndarray:
    """The library's own forward."""
    return fn(*map(Tensor, arrays), **options).data


# --- 1: mean of squares --------------------------------------------------------------------------------------------

mean_square = Exercise(
    "the mean of squares",
    "MeanSquare",
    forward=lambda x: (x**2).sum() / x.size,
    cases=[Case({"x": numbers(*shape)}) for shape in [(4, 3), (2, 5, 3, 1), (7,)]],
    sizes=lambda x: {"n": x.size, "n / len(x)": x.size / len(x)},
    mistakes=[
        Mistake(
            "x",
            "it is made from the value x^2, not from its derivative",
            "What is the derivative of x^2?",
            lambda grad, x: grad * x**2 / x.size,
        )
    ],
)

# --- 2: bias -------------------------------------------------------------------------------------------------------

add_bias = Exercise(
    "adding a bias",
    "AddBias",
    forward=lambda x, b: x + b.reshape(1, -1, 1, 1),
    cases=[Case({"x": numbers(*shape), "b": numbers(shape[1])}) for shape in [(4, 3, 5, 2), (2, 3, 3, 4), (3, 5, 1, 2)]],
    sizes=lambda x, b: {"N H W": x.size / len(b), "N": len(x), "H W": x[0, 0].size},
    mistakes=[
        Mistake(
            "b",
            "the gradient of b is that of one place only",
            "b[c] is added at every n, h and w, and the chain rule sums over all of them.",
            lambda grad, x, b: grad[0, :, 0, 0],
        )
    ],
)

# --- 3: swish ------------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sigmoid_slope(x):
    return sigmoid(x) * (1 - sigmoid(x))


swish = Exercise(
    "swish",
    "Swish",
    forward=lambda x: x / (1 + np.exp(-x)),
    cases=[Case({"x": numbers(*shape)}) for shape in [(4, 3), (2, 5, 3, 1), (7,)]],
    mistakes=[
        Mistake(
            "x",
            "x is used twice, and one of its two gradients is missing",
            "Yours is the gradient through the factor x, with s as a constant. But s is a function of x as well.",
            lambda grad, x: grad * sigmoid(x),
        ),
        Mistake(
            "x",
            "x is used twice, and one of its two gradients is missing",
            "Yours is the gradient through s, with the factor x as a constant. Add the gradient through that factor.",
            lambda grad, x: grad * x * sigmoid_slope(x),
        ),
        Mistake(
            "x",
            "the gradient through s lacks the factor x",
            "y = x s: if s changes by 1, y changes by x.",
            lambda grad, x: grad * (sigmoid(x) + sigmoid_slope(x)),
        ),
        Mistake(
            "x",
            "the derivative of s is missing",
            "There are two terms now. In the second, what is ds/dx? Write it with s alone.",
            lambda grad, x: grad * (sigmoid(x) + x),
        ),
        Mistake(
            "x",
            "the two gradients of x are multiplied, not added",
            "The gradients of the uses of a value add up.",
            lambda grad, x: grad * sigmoid(x) * x * sigmoid_slope(x),
        ),
    ],
)

# --- 4: linear -----------------------------------------------------------------------------------------------------

linear = Exercise(
    "the linear layer",
    "Linear",
    forward=lambda x, weight, bias: by(F.linear, x, weight, bias),
    cases=[
        Case({"x": numbers(N, features), "weight": numbers(O, features, seed=1), "bias": numbers(O)})
        for N, features, O in [(4, 3, 2), (2, 5, 3), (3, 3, 3)]
    ],
    sizes=lambda x, weight, bias: {"N": len(x)},
    mistakes=[
        Mistake(
            "bias",
            "the gradient of bias is that of the first row only",
            "bias is added to each of the N rows, and the chain rule sums over all of them.",
            lambda grad, x, weight, bias: grad[0],
        ),
    ],
)

# --- 5: dropout ----------------------------------------------------------------------------------------------------


def kept(x, p, seed, draws=1):
    rng = np.random.default_rng(seed)
    return [rng.random(x.shape) >= p for _ in range(draws)][-1]


dropout = Exercise(
    "dropout",
    "Dropout",
    forward=lambda x, p, seed: np.where(kept(x, p, seed), x / (1 - p), 0),
    cases=[
        Case({"x": numbers(*shape)}, (p, seed)) for shape, p, seed in [((4, 6), 0.4, 1), ((2, 5, 3, 2), 0.25, 3), ((20,), 0.7, 5)]
    ],
    sizes=lambda x, p, seed: {"1 - p": 1 - p, "p": p},
    after_forward=lambda function, x, p, seed: function(p, seed + 1)(Tensor(x)),
    mistakes=[
        Mistake(
            "x",
            "the mask is that of another dropout layer",
            "It is the mask of the forward that ran after this one. Which objects share the place that the mask is kept in?",
            lambda grad, x, p, seed: grad * kept(x, p, seed + 1) / (1 - p),
        ),
        Mistake(
            "x",
            "the mask is a new one",
            "backward draws again. It must use the mask that forward drew: the gradient belongs to what forward did.",
            lambda grad, x, p, seed: grad * kept(x, p, seed, draws=2) / (1 - p),
        ),
        Mistake(
            "x",
            "the mask is inverted",
            "Yours passes grad where x was dropped.",
            lambda grad, x, p, seed: grad * ~kept(x, p, seed) / (1 - p),
        ),
        Place(
            "x",
            "it is right where x was kept, and wrong where x was dropped",
            "y does not depend on an x that was dropped.",
            lambda x, p, seed: ~kept(x, p, seed),
        ),
    ],
)

# --- 6: cross-entropy ----------------------------------------------------------------------------------------------


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def at_labels(x, labels):
    return np.arange(x.shape[1]) == labels[:, None]


cross_entropy = Exercise(
    "softmax and cross-entropy",
    "SoftmaxCrossEntropy",
    forward=lambda x, labels: by(F.cross_entropy, x, labels),
    cases=[
        Case({"x": numbers(len(labels), C)}, (np.array(labels),))
        for labels, C in [([0, 3, 3, 1, 0], 4), ([4, 1], 6), ([2, 0, 1], 3)]
    ],
    sizes=lambda x, labels: {"N": len(x), "C": x.shape[1]},
    mistakes=[
        Mistake(
            "x",
            "1 is subtracted in whole columns",
            "dx[:, labels] picks, for each label, the column of all N images. Each row has one label: pick pairs (row, label).",
            lambda grad, x, labels: grad * (softmax(x) - at_labels(x, labels).any(axis=0)) / len(x),
        ),
        Mistake(
            "x",
            "the term of the label is missing",
            "Yours is the gradient of the logarithm of the sum only. -x[n, labels[n]] is a term of the loss too.",
            lambda grad, x, labels: grad * softmax(x) / len(x),
        ),
        Mistake(
            "x",
            "the term of the sum in the softmax is missing",
            "Yours is the gradient of -x[n, labels[n]] only. The sum of the exponentials depends on every x[n, c].",
            lambda grad, x, labels: -grad * at_labels(x, labels) / len(x),
        ),
        Mistake(
            "x",
            "it is the gradient of p, not that of x",
            "-1 / p is the derivative of -log p. Continue through the softmax: p depends on every x of its row.",
            lambda grad, x, labels: -grad * at_labels(x, labels) / softmax(x) / len(x),
        ),
        Place(
            "x",
            "it is wrong at the labels, and right elsewhere",
            "What does the term -x[n, labels[n]] add there?",
            at_labels,
        ),
    ],
)

# --- 7: batch normalisation ----------------------------------------------------------------------------------------


def mean(x):
    return x.mean(axis=(0, 2, 3), keepdims=True)


def batch_norm_mistake(what, hint, inside):
    """inside(g, xhat, gamma) replaces g - mean(g) - xhat mean(g xhat), for g = grad gamma."""

    def gradient(grad, x, gamma, beta, eps):
        inverse_std = 1 / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + eps)
        gamma = gamma.reshape(1, -1, 1, 1)
        return inside(grad * gamma, (x - mean(x)) * inverse_std, gamma) * inverse_std

    return Mistake("x", what, hint, gradient)


batch_norm = Exercise(
    "batch normalisation",
    "BatchNorm",
    forward=lambda x, gamma, beta, eps: (
        F.batch_norm(Tensor(x), weight=Tensor(gamma), bias=Tensor(beta), training=True, eps=eps).data
    ),
    cases=[
        Case({"x": numbers(*shape), "gamma": numbers(shape[1]) + 1.5, "beta": numbers(shape[1], seed=1)}, (eps,))
        for shape, eps in [((4, 3, 5, 2), 1e-2), ((2, 3, 3, 4), 0.5), ((3, 2, 1, 1), 1e-2)]
    ],
    sizes=lambda x, gamma, beta, eps: {"N H W": x.size / len(gamma), "N": len(x)},
    mistakes=[
        batch_norm_mistake(
            "mean and var are treated as constants",
            "Yours is right except for the terms through mean and var: they are functions of x too, so every x of a channel is "
            "in every xhat of it.",
            lambda g, xhat, gamma: g,
        ),
        batch_norm_mistake(
            "var is treated as a constant",
            "The term through mean is there. var is a function of x too.",
            lambda g, xhat, gamma: g - mean(g),
        ),
        batch_norm_mistake(
            "mean is treated as a constant",
            "The term through var is there. mean is a function of x too.",
            lambda g, xhat, gamma: g - xhat * mean(g * xhat),
        ),
        batch_norm_mistake(
            "the terms through mean and var lack 1 / m",
            "mean is the sum divided by m = N H W, and so is var.",
            lambda g, xhat, gamma: g - mean(g) * g[:, :1].size - xhat * mean(g * xhat) * g[:, :1].size,
        ),
        batch_norm_mistake(
            "the terms through mean and var have the wrong sign",
            "If mean grows, every xhat gets smaller. If var grows, every xhat comes closer to 0.",
            lambda g, xhat, gamma: g + mean(g) + xhat * mean(g * xhat),
        ),
        batch_norm_mistake(
            "gamma is missing",
            "dL/dxhat is grad gamma.",
            lambda g, xhat, gamma: (g - mean(g) - xhat * mean(g * xhat)) / gamma,
        ),
        Mistake(
            "gamma",
            "the gradient of gamma is made with x",
            "gamma multiplies xhat, not x.",
            lambda grad, x, gamma, beta, eps: (grad * x).sum(axis=(0, 2, 3)),
        ),
    ],
)

# --- 8: max pooling ------------------------------------------------------------------------------------------------


MAP_AXES = "dx has four axes: image, channel, row, column."


def maxima(x, size, stride):
    """For each window in turn: (where x is in the window, where x is its maximum), booleans of x's shape."""
    for i in range(0, x.shape[2] - size + 1, stride):
        for j in range(0, x.shape[3] - size + 1, stride):
            window = np.zeros(x.shape, bool)
            window[:, :, i : i + size, j : j + size] = True
            yield window, window & (x == np.where(window, x, -np.inf).max(axis=(2, 3), keepdims=True))


def routed(grad, x, size, stride, to):
    """The sum of all grads, each added to all elements of its window (to = 0), or to its maximum (to = 1)."""
    grads = grad.reshape(*grad.shape[:2], -1, 1, 1)
    return sum(grads[:, :, i] * elements[to] for i, elements in enumerate(maxima(x, size, stride)))


max_pool = Exercise(
    "overlapping max pooling",
    "MaxPool",
    forward=lambda x, size, stride: sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride].max(axis=(4, 5)),
    cases=[
        Case({"x": numbers(*shape)}, window)
        for shape, window in [((2, 3, 7, 5), (3, 2)), ((3, 2, 4, 6), (2, 1)), ((1, 2, 6, 4), (2, 2))]
    ],
    mistakes=[
        Place(
            "x",
            "the gradients of overlapping windows are not added up",
            "It is right where x is the maximum of one window, and wrong where it is that of several. "
            "What does dx[places] = grad do if the same place comes twice?",
            lambda x, size, stride: sum(maximum.astype(int) for _, maximum in maxima(x, size, stride)) > 1,
            second_hint="It keeps one of the values. In NumPy dx[places] += grad does so, too; np.add.at(dx, places, grad) adds "
            "them all.",
        ),
        Mistake(
            "x",
            "each window gives its gradient to all its elements",
            "y depends on the maximum of a window only.",
            lambda *values: routed(*values, to=0),
        ),
        Mistake(
            "x",
            "all images and channels get the same gradient",
            f"{MAP_AXES} A colon takes all of an axis. Which image and which channel is each maximum in?",
            lambda grad, x, *window: np.broadcast_to(routed(grad, x, *window, to=1).sum(axis=(0, 1)), x.shape),
        ),
    ],
    axes=f"{MAP_AXES} An element is dx[n, c, h, w].",
)

# --- 9: convolution ------------------------------------------------------------------------------------------------


def convolution_dx(grad, x, weight, bias, stride, padding, add=True):
    dx = np.pad(np.zeros_like(x), [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    OH, OW = grad.shape[2:]
    for i, j in np.ndindex(*weight.shape[2:]):
        seen = dx[:, :, i : i + stride * OH : stride, j : j + stride * OW : stride]
        seen[...] = seen * add + np.einsum("nohw,oc->nchw", grad, weight[:, :, i, j])
    return dx[:, :, padding : dx.shape[2] - padding, padding : dx.shape[3] - padding]


def convolution_dweight(grad, x, weight, bias, stride, padding):
    xpad = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    windows = sliding_window_view(xpad, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nohw,nchwij->ocij", grad, windows)


convolution = Exercise(
    "convolution",
    "Convolution",
    forward=lambda x, weight, bias, stride, padding: by(F.conv2d, x, weight, bias, stride=stride, padding=padding),
    cases=[
        Case({"x": numbers(*shape), "weight": numbers(O, shape[1], *kernel, seed=1), "bias": numbers(O)}, arguments)
        for shape, O, kernel, arguments in [
            ((2, 3, 5, 4), 4, (3, 2), (1, 1)),
            ((3, 2, 6, 4), 3, (3, 3), (2, 0)),
            ((1, 2, 5, 5), 2, (2, 3), (2, 1)),
        ]
    ],
    sizes=lambda x, weight, bias, stride, padding: {"N": len(x)},
    mistakes=[
        Mistake(
            "x",
            "the gradients of overlapping patches are overwritten",
            "A pixel is seen by several outputs, once for each i, j: their gradients add up, and yours keeps the last one.",
            lambda *values: convolution_dx(*values, add=False),
        ),
        Mistake(
            "x",
            "the kernel is flipped",
            "xpad[seen_by(i, j)] was multiplied by weight[:, :, i, j], so its gradient is too.",
            lambda grad, x, weight, *rest: convolution_dx(grad, x, weight[:, :, ::-1, ::-1], *rest),
        ),
        Mistake(
            "weight",
            "the gradient of weight is flipped",
            "weight[:, :, i, j] was multiplied by xpad[seen_by(i, j)].",
            lambda *values: convolution_dweight(*values)[:, :, ::-1, ::-1],
        ),
        Mistake(
            "weight",
            "the gradient of weight is that of the first image only",
            "The same weight is used for every image: sum over n.",
            lambda grad, x, *rest: convolution_dweight(grad[:1], x[:1], *rest),
        ),
    ],
)

# --- 10: local response normalisation ------------------------------------------------------------------------------


def response_norm_mistake(what, hint, neighbours, exponent=1, factor=2.0):
    """neighbours(t, x, before, after) replaces x_c times the sum of t_j over the j whose window contains c."""

    def gradient(grad, x, size, alpha, beta, k):
        before, after = size // 2, (size - 1) // 2
        s = k + alpha / size * around(x**2, before, after)
        t = grad * x / s ** (beta + exponent)
        return grad / s**beta - factor * alpha * beta / size * neighbours(t, x, before, after)

    return Mistake("x", what, hint, gradient)


def around(x, before, after):
    """The sum over the channels from c - before to c + after."""
    padded = np.pad(x, [(0, 0), (before, after), (0, 0), (0, 0)])
    return sliding_window_view(padded, before + after + 1, axis=1).sum(axis=-1)


local_response_norm = Exercise(
    "local response normalisation",
    "LocalResponseNorm",
    forward=lambda x, size, alpha, beta, k: by(F.local_response_norm, x, size=size, alpha=alpha, beta=beta, k=k),
    cases=[
        Case({"x": numbers(*shape)}, (size, 0.9, 0.75, k))
        for shape, size, k in [((2, 6, 3, 4), 5, 1.0), ((3, 4, 1, 2), 3, 2.0), ((1, 7, 2, 2), 4, 1.0)]
    ],
    mistakes=[
        response_norm_mistake(
            "the denominators of the neighbours are missing",
            "Yours has x_c in the numerator of y_c and in its own s_c. But x_c is in s_j of every channel j around it as well, "
            "and each of these y_j gives a term.",
            lambda t, x, before, after: x * t,
        ),
        response_norm_mistake(
            "s is treated as a constant",
            "Yours has x_c in the numerator only. s is a function of x too.",
            lambda t, x, before, after: 0 * x,
        ),
        response_norm_mistake(
            "the window is taken from the wrong side",
            "The sum is over the j whose window holds c. With an even size this is not the window around c.",
            lambda t, x, before, after: x * around(t, before, after),
        ),
        response_norm_mistake(
            "x stands inside the sum in place of outside, or the other way round",
            "ds_j/dx_c = 2 alpha / size x_c has the x of c, and dy_j/ds_j has the x of j.",
            lambda t, x, before, after: around(x * t, after, before),
        ),
        response_norm_mistake(
            "the derivative of the power of s has the wrong exponent",
            "The derivative of s^-beta with respect to s is -beta s^(-beta - 1).",
            lambda t, x, before, after: x * around(t, after, before),
            exponent=0,
        ),
        response_norm_mistake(
            "the term through s lacks the 2 of the square",
            "s holds x^2.",
            lambda t, x, before, after: x * around(t, after, before),
            factor=1,
        ),
    ],
)

# --- 11: a batch that is divided among ranks -----------------------------------------------------------------------


class Shards(list):
    """(x, t) of each rank: the rows of a batch that it has, and their targets."""

    def __init__(self, features: int, *sizes: int):
        stops = np.cumsum(sizes)[:-1]
        x, t = numbers(sum(sizes), features), numbers(sum(sizes), seed=1)
        super().__init__(zip(np.split(x, stops), np.split(t, stops), strict=True))

    def __str__(self):
        return f"shards of {', '.join(str(len(t)) for _, t in self)} images"


def images(shards):
    return sum(len(t) for _, t in shards)


def of_one_shard(w, x, t):
    """The gradient of the sum of squares."""
    return 2 * (x @ w - t) @ x


data_parallel = Exercise(
    "a batch that is divided among ranks",
    "DataParallelLoss",
    forward=lambda w, shards: sum(((x @ w - t) ** 2).sum() for x, t in shards) / images(shards),
    cases=[
        Case({"w": numbers(features)}, (Shards(features, *sizes),))
        for features, sizes in [(3, (4, 1, 2)), (2, (1, 4)), (5, (2, 1, 3, 3))]
    ],
    sizes=lambda w, shards: {"ranks": len(shards), "N": images(shards), "N / ranks": images(shards) / len(shards)},
    mistakes=[
        Mistake(
            "w",
            "each rank divides by the size of its own shard",
            "So an image of a small shard counts for more than an image of a large one. In y all N images count the same. "
            "What must each rank divide by?",
            lambda grad, w, shards: grad * sum(of_one_shard(w, x, t) / len(t) for x, t in shards),
        ),
        Mistake(
            "w",
            "the size of a shard counts twice",
            "The gradient of a sum over a shard grows with the shard already. Multiply only a mean by N_r / N.",
            lambda grad, w, shards: grad * sum(of_one_shard(w, x, t) * len(t) for x, t in shards) / images(shards),
        ),
        *(
            Mistake(
                "w",
                f"it is made from the shard of the {which} rank only",
                "w is used by every rank, and the gradients of its uses add up.",
                lambda grad, w, shards, r=r: grad * of_one_shard(w, *shards[r]) / images(shards),
            )
            for which, r in [("first", 0), ("last", -1)]
        ),
    ],
)

# --- 12: gather ----------------------------------------------------------------------------------------------------


def parts_of_sum(grad, *parts):
    """For each rank, its rows of the sum over all ranks."""
    return np.split(grad.sum(axis=0), np.cumsum([len(x) for x in parts])[:-1])


gather = Exercise(
    "gathering the parts of all ranks",
    "Gather",
    forward=lambda *parts: np.array([[row for x in parts for row in x] for rank in parts]),
    cases=[
        Case({f"x{rank}": numbers(N, C, seed=rank) for rank, N in enumerate(sizes)})
        for sizes, C in [((2, 2, 2), 4), ((1, 3), 2), ((3, 1, 2, 2), 5)]
    ],
    sizes=lambda *parts: {"ranks": len(parts)},
    mistakes=[
        Mistake(
            "x0",
            "the gradient of x0 is that of one copy only",
            "Every rank has a copy of x0 and uses it in its own way. Each copy gives a gradient, and they add up.",
            lambda grad, x0, *others: grad[0, : len(x0)],
        ),
        Mistake(
            "x0",
            "the gradient of x0 lacks that of the own copy",
            "Rank 0 has a copy of x0, too. Its gradient goes into the sum like those of the other ranks.",
            lambda grad, x0, *others: grad[1:, : len(x0)].sum(axis=0),
        ),
        *(
            Mistake(
                "x0",
                "the gradient of x0 is that of another part",
                "Which rows of each copy are x0? forward keeps them: self.rows[0].",
                lambda grad, *parts, part=part: parts_of_sum(grad, *parts)[part],
            )
            for part in (1, -1)
        ),
    ],
)

EXERCISES = [
    mean_square,
    add_bias,
    swish,
    linear,
    dropout,
    cross_entropy,
    batch_norm,
    max_pool,
    convolution,
    local_response_norm,
    data_parallel,
    gather,
]
