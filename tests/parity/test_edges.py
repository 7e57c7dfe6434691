"""Edge cases compared with PyTorch: NaN and infinity, empty arrays, single numbers, float16, memory layouts, indexing."""

import numpy as np
import pytest

import minidl.functional as F
from minidl import Tensor, random

torch = pytest.importorskip("torch")
TF = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's warnings, of inf - inf for instance

LABELS = np.array([2, 0, 1, 3, 3])
NAN, INF = np.nan, np.inf


def results(function, arrays, kind, grad):
    """[the value, the gradient of each input] of a function of minidl's tensors (kind "ours") or of PyTorch's."""
    ours = kind == "ours"
    inputs = [Tensor(a, requires_grad=True) if ours else torch.tensor(a, requires_grad=True) for a in arrays]
    y = function(*inputs)
    y.backward(grad if ours else torch.tensor(grad))
    return [y.data if ours else y.detach().numpy(), *(x.grad if ours else x.grad.numpy() for x in inputs)]


def compare(ours, theirs, *arrays, grad=None, tolerance=1e-12):
    """Value and gradients agree, with NaN and infinity at the same positions; tolerance: times the largest entry, at least 1."""
    with torch.no_grad():
        shape = theirs(*map(torch.tensor, arrays)).shape
    if grad is None:
        grad = np.random.default_rng(9).standard_normal(shape)
    grad = np.broadcast_to(grad, shape).astype(arrays[0].dtype)
    pairs = zip(results(ours, arrays, "ours", grad), results(theirs, arrays, "theirs", grad), strict=True)
    for i, (mine, other) in enumerate(pairs):
        what = "value" if i == 0 else f"gradient of input {i - 1}"
        assert (mine.shape, mine.dtype) == (other.shape, other.dtype), what
        scale = np.abs(other, where=np.isfinite(other), out=np.zeros_like(other)).max(initial=1)
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance * float(scale), err_msg=what)


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


# --- NaN and infinity ----------------------------------------------------------------------------------------------

IMAGES = (2, 3, 6, 6)
FUNCTIONS = {
    "relu": (F.relu, TF.relu, [IMAGES]),
    "tanh": (F.tanh, torch.tanh, [IMAGES]),
    "sigmoid": (F.sigmoid, torch.sigmoid, [IMAGES]),
    "softmax": (F.softmax, lambda x: TF.softmax(x, 1), [(5, 4)]),
    "softmax of columns": (lambda x: F.softmax(x, 0), lambda x: TF.softmax(x, 0), [(5, 4)]),
    "log_softmax": (F.log_softmax, lambda x: TF.log_softmax(x, 1), [(5, 4)]),
    "cross_entropy": (
        lambda x: F.cross_entropy(x, LABELS, reduction="none"),
        lambda x: TF.cross_entropy(x, torch.tensor(LABELS), reduction="none"),
        [(5, 4)],
    ),
    "cross_entropy, smoothed": (
        lambda x: F.cross_entropy(x, LABELS, label_smoothing=0.1),
        lambda x: TF.cross_entropy(x, torch.tensor(LABELS), label_smoothing=0.1),
        [(5, 4)],
    ),
    "mse_loss": (F.mse_loss, TF.mse_loss, [(5, 4), (5, 4)]),
    "max_pool2d": (
        lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda x: TF.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        [IMAGES],
    ),
    "max_pool2d, overlapping": (lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: TF.max_pool2d(x, 3, 1, 1), [IMAGES]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, True), lambda x: TF.avg_pool2d(x, 3, 2, 1, True), [IMAGES]),
    "adaptive_avg_pool2d": (
        lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
        lambda x: TF.adaptive_avg_pool2d(x, (4, 5)),
        [IMAGES],
    ),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 1)), lambda x: TF.pad(x, (1, 0, 2, 1)), [IMAGES]),
    "batch_norm in training": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: TF.batch_norm(x, None, None, w, b, True),
        [IMAGES, (3,), (3,)],
    ),
    "batch_norm in evaluation": (
        lambda x, w, b: F.batch_norm(x, np.ones(3), np.full(3, 2.0), w, b),
        lambda x, w, b: TF.batch_norm(x, torch.ones(3).double(), torch.full((3,), 2.0).double(), w, b),
        [IMAGES, (3,), (3,)],
    ),
    "local_response_norm": (
        lambda x: F.local_response_norm(x, 5, 0.1, 0.75, 2.0),
        lambda x: TF.local_response_norm(x, 5, 0.1, 0.75, 2.0),
        [(2, 7, 3, 2)],
    ),
    "local_response_norm, even": (
        lambda x: F.local_response_norm(x, 4, 0.1, 0.6),
        lambda x: TF.local_response_norm(x, 4, 0.1, 0.6),
        [(2, 7, 3, 2)],
    ),
    "linear": (F.linear, TF.linear, [(5, 4), (3, 4), (3,)]),
    "linear of (N, T, F)": (F.linear, TF.linear, [(2, 5, 4), (3, 4), (3,)]),
    "conv2d by im2col": (
        lambda x, w, b: F.conv2d(x, w, b, 2, 1),
        lambda x, w, b: TF.conv2d(x, w, b, 2, 1),
        [IMAGES, (4, 3, 3, 3), (4,)],
    ),
    "add": (lambda a, b: a + b, lambda a, b: a + b, [(3, 4), (4,)]),
    "multiply": (lambda a, b: a * b, lambda a, b: a * b, [(3, 4), (4,)]),
    "divide": (lambda a, b: a / b, lambda a, b: a / b, [(3, 4), (4,)]),
    "matmul": (lambda a, b: a @ b, lambda a, b: a @ b, [(3, 4), (4, 2)]),
    "square": (lambda x: x**2, lambda x: x**2, [(3, 4)]),
    "power zero": (lambda x: x**0, lambda x: x**0, [(3, 4)]),
    "reciprocal": (lambda x: x**-1, lambda x: x**-1, [(3, 4)]),
    "exp": (lambda x: x.exp(), torch.exp, [(3, 4)]),
    "log": (lambda x: x.log(), torch.log, [(3, 4)]),
    "sum": (lambda x: x.sum((0, -1)), lambda x: x.sum((0, -1)), [(3, 4, 2)]),
    "mean": (lambda x: x.mean(1), lambda x: x.mean(1), [(3, 4, 2)]),
    "max": (lambda x: x.max(), torch.max, [(3, 4)]),
    "max of an axis": (lambda x: x.max(-1, True), lambda x: x.max(-1, True)[0], [(3, 4)]),
    "getitem": (lambda x: x[[0, 0, 2], 1:], lambda x: x[[0, 0, 2], 1:], [(3, 4)]),
    "cat": (lambda a, b: F.cat([a, b, a], -1), lambda a, b: torch.cat([a, b, a], -1), [(3, 4), (3, 2)]),
    "stack": (lambda a, b: F.stack([a, b, a], -1), lambda a, b: torch.stack([a, b, a], -1), [(3, 4), (3, 4)]),
}
SPOILT = {
    "one NaN": [NAN],
    "one infinity": [INF],
    "both infinities": [INF, -INF],
    "NaN and infinities": [NAN, INF, -INF],
    "zeros of both signs": [0.0, -0.0],
}


@pytest.mark.parametrize("values", SPOILT)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_that_are_not_finite_give_what_pytorch_gives(name, values):
    """Each input in turn. Fractional powers are left out: at -inf C and PyTorch differ."""
    ours, theirs, shapes = FUNCTIONS[name]
    for i in range(len(shapes)):
        arrays = draw(*shapes)
        for place, value in enumerate(SPOILT[values]):
            arrays[i].flat[(7 * place + 3) % arrays[i].size] = value
        compare(ours, theirs, *arrays)


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"batch_norm in training", "cross_entropy", "cross_entropy, smoothed"}))
def test_an_output_gradient_that_is_not_finite_gives_what_pytorch_gives(name, value):
    """Without cross-entropy: (p - t) times infinity is infinite, PyTorch's inf - inf is NaN. For batch norm see below."""
    ours, theirs, shapes = FUNCTIONS[name]
    arrays = draw(*shapes)
    with torch.no_grad():
        grad = np.asarray(draw(theirs(*map(torch.tensor, arrays)).shape, seed=1)[0])
    grad.flat[grad.size // 2] = value
    compare(ours, theirs, *arrays, grad=grad)


def test_an_infinite_gradient_in_batch_norm_in_training_affects_only_its_channel():
    """Every dx of the channel depends on it, so none is finite. NaN in one library may be infinity in the other."""
    ours, theirs, shapes = FUNCTIONS["batch_norm in training"]
    arrays, grad = draw(*shapes), np.ones(IMAGES)
    grad[0, 1, 2, 3] = INF
    mine, other = results(ours, arrays, "ours", grad), results(theirs, arrays, "theirs", grad)
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
        np.testing.assert_allclose(a[np.isfinite(a)], b[np.isfinite(b)], rtol=1e-12, atol=1e-13)
    assert not np.isfinite(mine[1][:, 1]).any() and np.isfinite(mine[1][:, [0, 2]]).all()


@pytest.mark.parametrize("settings", [(3, 2, 1), (3, 1, 1), (2, 2, 1), (3, 3, 0)])
@pytest.mark.parametrize("rest", [-INF, NAN])
def test_max_pool2d_of_windows_with_no_maximum(settings, rest):
    """All -inf or all NaN, also next to the padding: the gradient goes to one element of the image."""
    x = np.full((1, 2, 6, 6), rest)
    x[0, 0, :3, :3] = 1.0
    for ceil_mode in (False, True):
        compare(
            lambda x, c=ceil_mode: F.max_pool2d(x, *settings, ceil_mode=c),
            lambda x, c=ceil_mode: TF.max_pool2d(x, *settings, ceil_mode=c),
            x,
        )


def test_dropout_multiplies_nan_and_infinity_by_the_mask():
    """y = x m and dx = dy m by IEEE 754, so a dropped infinity is NaN, as in PyTorch."""
    (x,), (grad,) = draw((4, 6)), draw((4, 6), seed=1)
    x.flat[:8], grad.flat[8:12] = [NAN, INF, -INF, 0] * 2, [NAN, INF, -INF, 0]
    with random.context(3, 7):
        mask = F.dropout(np.ones((4, 6)), 0.5, key=2).data
    with random.context(3, 7):
        mine = results(lambda x: F.dropout(x, 0.5, key=2), [x], "ours", grad)
    assert set(mask.flat) == {0.0, 2.0}
    np.testing.assert_array_equal(mine[0], x * mask)
    np.testing.assert_array_equal(mine[1], grad * mask)


@pytest.mark.parametrize("value", [NAN, INF])
def test_winograd_confines_nan_and_infinity_to_their_image_and_channel(value):
    """A tile is transformed as a whole: one infinity makes all outputs of its tile NaN, but nothing else.

    Other images, and the gradient of the weight in other input channels, agree with PyTorch. An entry that is not finite in
    PyTorch is not finite here.
    """
    x, weight, bias = draw((3, 64, 9, 9), (64, 64, 3, 3), (64,))
    x[1, 5, 4, 7] = value
    grad = draw((3, 64, 9, 9), seed=1)[0]
    ours = lambda x, w, b: F.conv2d(x, w, b, padding=1)
    assert ours(*[Tensor(a, requires_grad=True) for a in (x, weight, bias)]).creator.winograd_tile is not None
    mine = results(ours, [x, weight, bias], "ours", grad)
    other = results(lambda x, w, b: TF.conv2d(x, w, b, padding=1), [x, weight, bias], "theirs", grad)
    for a, b in zip(mine, other, strict=True):
        assert not (np.isfinite(a) & ~np.isfinite(b)).any()
    for at in (mine, other):
        at[0], at[2] = at[0][[0, 2]], at[2][:, [c for c in range(64) if c != 5]]
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


# --- empty arrays, single numbers, odd layouts ---------------------------------------------------------------------

ANY_SHAPE = {
    "relu": (F.relu, TF.relu),
    "sigmoid": (F.sigmoid, torch.sigmoid),
    "exp": (lambda x: x.exp(), torch.exp),
    "softmax": (lambda x: F.softmax(x, -1), lambda x: TF.softmax(x, -1)),
    "log_softmax": (lambda x: F.log_softmax(x, 0), lambda x: TF.log_softmax(x, 0)),
    "sum": (lambda x: x.sum(), torch.sum),
    "sum of an axis": (lambda x: x.sum(0), lambda x: x.sum(0)),
    "mean of an axis": (lambda x: x.mean(-1, True), lambda x: x.mean(-1, True)),
    "stack": (lambda x: F.stack([x, x], -1), lambda x: torch.stack([x, x], -1)),
    "mse_loss": (lambda x: F.mse_loss(x, x * 2), lambda x: TF.mse_loss(x, x * 2)),
    "flatten": (lambda x: F.flatten(x, 0), lambda x: torch.flatten(x, 0)),
    "reshape": (lambda x: x.reshape(-1), lambda x: x.reshape(-1)),
    "getitem": (lambda x: x[..., None], lambda x: x[..., None]),
}


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (0, 3), (2, 1, 3)])
@pytest.mark.parametrize("name", ANY_SHAPE)
def test_empty_arrays_and_single_numbers(name, shape):
    ours, theirs = ANY_SHAPE[name]
    compare(ours, theirs, np.random.default_rng(0).standard_normal(shape) * np.ones(shape))


@pytest.mark.parametrize("axis, keepdims", [(None, False), (0, False), (-1, True)])
def test_max_of_a_single_number(axis, keepdims):
    x = Tensor(np.array(3.0), requires_grad=True)
    y = x.max(axis, keepdims)
    y.backward(np.array(2.0))
    assert y.item() == 3 and x.grad.shape == () and x.grad == 2


@pytest.mark.parametrize(
    "x, weight", [((2, 3, 0), (4, 0)), ((2, 0), (4, 0)), ((0,), (4, 0)), ((2, 3), (0, 3)), ((0, 2, 3), (4, 3))]
)
def test_linear_of_empty_arrays(x, weight):
    compare(F.linear, TF.linear, *draw(x, weight, weight[:1]))


def test_an_empty_batch_does_not_change_the_running_statistics():
    mean, var = np.ones(3), np.full(3, 2.0)
    assert F.batch_norm(np.ones((0, 3, 2, 2)), mean, var, training=True).shape == (0, 3, 2, 2)
    np.testing.assert_array_equal([mean, var], [[1] * 3, [2] * 3])


LAYOUTS = {
    "transposed": lambda x: x.transpose(*reversed(range(x.ndim))).copy().transpose(*reversed(range(x.ndim))),
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_may_have_any_memory_layout(name, layout):
    """The memory layout of the inputs and of the output gradient changes the results by rounding only."""
    function, _, shapes = FUNCTIONS[name]
    arrays = draw(*shapes)
    plain = function(*map(Tensor, arrays))
    grad = np.asarray(np.random.default_rng(1).standard_normal(plain.shape))
    lay = lambda a: LAYOUTS[layout](a) if a.ndim else a
    expected = results(function, arrays, "ours", grad)
    for a, b in zip(results(function, [lay(a) for a in arrays], "ours", lay(grad)), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_inputs_with_a_stride_of_0():
    (x,), (w,) = draw((1, 3, 1, 1)), draw((1, 1, 3, 3), seed=1)
    wide, weight = np.broadcast_to(x, (2, 3, 5, 5)), np.broadcast_to(w, (4, 3, 3, 3))
    compare(lambda x, w: F.conv2d(x, w, padding=1), lambda x, w: TF.conv2d(x, w, padding=1), wide, weight)
    compare(lambda x: F.max_pool2d(x, 3, 2), lambda x: TF.max_pool2d(x, 3, 2), wide)
    compare(lambda x: F.local_response_norm(x, 3, 0.1), lambda x: TF.local_response_norm(x, 3, 0.1), wide)


@pytest.mark.parametrize(
    "ours, theirs, shape",
    [
        (lambda x: x * x, lambda x: x * x, (3, 4)),
        (lambda x: x / x, lambda x: x / x, (3, 4)),
        (lambda x: x @ x, lambda x: x @ x, (3, 3)),
        (lambda x: F.linear(x, x, x[0]), lambda x: TF.linear(x, x, x[0]), (3, 3)),
        (lambda x: F.mse_loss(x, x), lambda x: TF.mse_loss(x, x), (3, 4)),
        (lambda x: F.conv2d(x, x, padding=1), lambda x: TF.conv2d(x, x, padding=1), (2, 2, 3, 3)),
        (lambda x: F.cat([x, x]), lambda x: torch.cat([x, x]), (3, 4)),
    ],
)
def test_one_tensor_may_be_two_arguments(ours, theirs, shape):
    compare(ours, theirs, *draw(shape))


# --- indexing, joining, products -----------------------------------------------------------------------------------

MASK = np.arange(20).reshape(4, 5) % 3 == 0
KEYS = [
    *(0, -1, np.int64(1), slice(1, 3), slice(None, None, 2), (slice(None), 1), (..., 0), (None, ..., None), True, False),
    *([0, 2, 0], np.array([1, 1, -1]), np.zeros(0, int), slice(3, 3), (0, 1, 2), np.zeros((4, 5, 6), bool)),
    *(MASK, MASK[:, 0], (slice(None), MASK[0]), (MASK[:, 0], 0), (None, MASK), (0, ..., slice(1, None))),
    *((np.array([0, 1]), np.array([1, 1])), (np.array([[0], [1]]), slice(None), np.array([1, 2])), ([0, 1], slice(1, 3), 2)),
]


def of_torch(key):
    if isinstance(key, tuple):
        return tuple(map(of_torch, key))
    return torch.tensor(key) if isinstance(key, np.ndarray) else int(key) if isinstance(key, np.integer) else key


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key)[:30])
def test_getitem(key):
    x = draw((4, 5, 6))
    compare(lambda x: x[key], lambda x: x[of_torch(key)], *x)
    if isinstance(key, np.ndarray):
        compare(lambda x: x[Tensor(key)], lambda x: x[of_torch(key)], *x)


@pytest.mark.parametrize(
    "left, right",
    [
        *(((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((2, 2, 3), (3,)), ((3,), (2, 3, 2))),
        *(((2, 1, 2, 3), (3, 3, 1)), ((2, 0), (0, 3)), ((0, 2), (2, 3)), ((5, 1, 2), (2,)), ((0,), (0,)), ((1, 3), (5, 3, 2))),
    ],
)
def test_matmul_of_all_ranks(left, right):
    compare(lambda a, b: a @ b, lambda a, b: a @ b, *draw(left, right))


@pytest.mark.parametrize("start, end", [(0, -1), (1, 2), (-2, -1), (2, 2), (0, 1)])
def test_flatten_from_start_to_end(start, end):
    compare(lambda x: F.flatten(x, start, end), lambda x: torch.flatten(x, start, end), *draw((2, 3, 4, 5)))


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (-1, 0)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_max_of_axes_with_ties(axis, keepdims):
    x = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(float)
    theirs = torch.amax if isinstance(axis, tuple) else lambda x, axis, keepdims: torch.max(x, axis, keepdims)[0]
    compare(lambda x: x.max(axis, keepdims), lambda x: theirs(x, axis, keepdims), x)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 5), (4, 1), (6, 7)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_conv2d_with_same_padding(kernel, groups):
    compare(
        lambda x, w: F.conv2d(x, w, padding="same", groups=groups),
        lambda x, w: TF.conv2d(x, w, padding="same", groups=groups),
        *draw((2, 4, 5, 6), (4, 4 // groups, *kernel)),
    )


@pytest.mark.parametrize("number", [np.float64(0.1), np.float32(0.5), np.int64(1)])
def test_numpy_numbers_do_not_widen_float32(number):
    x = draw((2, 3, 4, 4))[0].astype(np.float32)
    plain = number.item()
    compare(lambda x: (x * x) ** number, lambda x: (x * x) ** plain, x, tolerance=1e-5)
    compare(
        lambda x: F.local_response_norm(x, 3, number, number, number),
        lambda x: TF.local_response_norm(x, 3, plain, plain, plain),
        x,
        tolerance=1e-5,
    )
    logits = x.reshape(24, 4)[:5]
    compare(
        lambda x: F.cross_entropy(x, LABELS, number, "none"),
        lambda x: TF.cross_entropy(x, torch.tensor(LABELS), label_smoothing=plain, reduction="none"),
        logits,
        tolerance=1e-5,
    )


# --- float16 -------------------------------------------------------------------------------------------------------

HALVES = sorted(set(FUNCTIONS) - {name for name in FUNCTIONS if "local_response_norm" in name or "evaluation" in name})


@pytest.mark.parametrize("name", HALVES)
def test_float16(name):
    """Agrees with PyTorch on a CPU to the rounding of float16."""
    ours, theirs, shapes = FUNCTIONS[name]
    compare(ours, theirs, *[np.abs(a).astype(np.float16) + np.float16(0.1) for a in draw(*shapes)], tolerance=4e-3)


@pytest.mark.parametrize(
    "name", ["local_response_norm", "batch_norm in training", "softmax", "cross_entropy", "conv2d by im2col"]
)
def test_float16_is_float32_rounded(name):
    ours, _, shapes = FUNCTIONS[name]
    arrays = [a.astype(np.float16) for a in draw(*shapes)]
    grad = draw(ours(*map(Tensor, arrays)).shape, seed=1)[0].astype(np.float16)
    exact = results(ours, [a.astype(np.float32) for a in arrays], "ours", grad.astype(np.float32))
    for half, single in zip(results(ours, arrays, "ours", grad), exact, strict=True):
        assert half.dtype == np.float16
        np.testing.assert_array_equal(half, single.astype(np.float16))


def test_float16_sums_do_not_overflow():
    ones = np.ones(100_000, np.float16)
    x, t = Tensor(ones, requires_grad=True), torch.tensor(ones, requires_grad=True)
    y, twin = x.mean(), t.mean()
    y.backward(), twin.backward()
    assert y.dtype == np.float16 and y.item() == twin.item() == 1
    np.testing.assert_array_equal(x.grad, t.grad.numpy())
    values = np.random.default_rng(0).standard_normal((1000, 1, 10, 10)).astype(np.float16)
    y = F.batch_norm(values + np.float16(3), training=True)
    assert abs(y.data.astype(float).mean()) < 1e-3 and abs(y.data.astype(float).std() - 1) < 1e-3
