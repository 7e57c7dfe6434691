"""Every function compared with its definition in loops, for many shapes, and its gradient with finite differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl.functional as F
from minidl import Tensor, gradcheck, random
from minidl.backend import to_device, to_numpy
from minidl.kernels import numpy_kernels
from minidl.kernels.layout import to_batch_last

from ..helpers import naive
from ..helpers.compare import assert_allclose, assert_array_equal

small = st.integers(1, 5)
CONVENTIONS = st.sampled_from(["pytorch", "paper", "tensorflow"])


def close(tensor, expected):
    assert tensor.shape == expected.shape
    assert_allclose(to_numpy(tensor.data), to_numpy(expected), rtol=1e-10, atol=1e-12)


def check(fn, *inputs):
    """Check gradients along random directions, and of each element if there are at most 200."""
    gradcheck(fn, inputs, mode="directions")
    if sum(x.data.size for x in inputs) <= 200:
        gradcheck(fn, inputs, mode="elements")


# --- arithmetic and shapes -----------------------------------------------------------------------------------------

ARITHMETIC = {
    "add": (lambda a, b: a + b, [(2, 3), (3,)]),
    "subtract": (lambda a, b: a - b, [(2, 3), (2, 1)]),
    "multiply": (lambda a, b: a * b, [(2, 3), (1, 3)]),
    "divide": (lambda a, b: a / b, [(3,), (2, 3)]),
    "negate": (lambda a: -a, [(2, 3)]),
    "square": (lambda a: a**2, [(2, 3)]),
    "power zero": (lambda a: a**0 * a, [(2, 3)]),
    "reciprocal": (lambda a: a**-1, [(2, 3)]),
    "root": (lambda a: (a * a) ** 0.5, [(2, 3)]),
    "matmul": (lambda a, b: a @ b, [(2, 3), (3, 4)]),
    "matmul stack": (lambda a, b: a @ b, [(2, 2, 3), (3, 2)]),
    "matmul stacks": (lambda a, b: a @ b, [(2, 1, 2, 3), (3, 3, 1)]),
    "vector @ matrix": (lambda a, b: a @ b, [(3,), (3, 2)]),
    "matrix @ vector": (lambda a, b: a @ b, [(2, 3), (3,)]),
    "stack @ vector": (lambda a, b: a @ b, [(2, 2, 3), (3,)]),
    "vector @ stack": (lambda a, b: a @ b, [(3,), (2, 3, 2)]),
    "vector @ vector": (lambda a, b: a @ b, [(3,), (3,)]),
    "sum": (lambda a: a.sum(), [(2, 3)]),
    "sum axis": (lambda a: a.sum(axis=1), [(2, 3, 2)]),
    "sum axes": (lambda a: a.sum(axis=(0, -1)), [(2, 3, 2)]),
    "sum keepdims": (lambda a: a.sum(axis=(0, 2), keepdims=True), [(2, 3, 2)]),
    "mean": (lambda a: a.mean(), [(2, 3)]),
    "mean axis": (lambda a: a.mean(axis=-1), [(2, 3)]),
    "mean keepdims": (lambda a: a.mean(axis=0, keepdims=True), [(2, 3)]),
    "reshape": (lambda a: a.reshape(3, -1), [(2, 3)]),
    "reshape tuple": (lambda a: a.reshape((6,)), [(2, 3)]),
    "transpose": (lambda a: a.transpose(), [(2, 3, 4)]),
    "transpose axes": (lambda a: a.transpose(1, -1, 0), [(2, 3, 4)]),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(make, name):
    fn, shapes = ARITHMETIC[name]
    inputs = [make(*shape, seed=i) for i, shape in enumerate(shapes)]
    close(fn(*inputs), np.asarray(fn(*[to_numpy(x.data) for x in inputs])))
    check(fn, *inputs)


def test_flatten_keeps_the_order_and_has_the_right_gradient(make):
    x = make(2, 3, 4, 2)
    close(F.flatten(x), x.data.reshape(2, 24))
    close(F.flatten(x, start_dim=2), x.data.reshape(2, 3, 8))
    assert F.flatten(Tensor(np.zeros((0, 3, 2)))).shape == (0, 6)
    check(F.flatten, x)


# --- layers --------------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_conv2d_matches_its_definition(device, data):
    draw = data.draw
    groups = draw(st.integers(1, 3))
    N, CG, OG = draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, stride = (draw(small), draw(small)), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    H, W = (draw(st.integers(max(1, k - 2 * p), 8)) for k, p in zip(kernel, padding, strict=True))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x, weight = rng.standard_normal((N, CG * groups, H, W)), rng.standard_normal((OG * groups, CG, *kernel))
    bias = rng.standard_normal(OG * groups) if draw(st.booleans()) else None
    tensors = [None if a is None else Tensor(to_device(a, device)) for a in (x, weight, bias)]
    close(F.conv2d(*tensors, stride, padding, groups=groups), naive.conv2d(x, weight, bias, stride, padding, groups))


@pytest.mark.parametrize("column_bytes", [1, 500, 1 << 24])
@pytest.mark.parametrize("stride, padding, groups", [(1, 0, 1), (1, 2, 1), (2, 1, 2), ((2, 3), (0, 1), 1)])
def test_conv2d_is_right_with_chunks_of_any_size(make, monkeypatch, column_bytes, stride, padding, groups):
    from minidl.kernels import columns

    monkeypatch.setattr(columns, "COLUMN_BYTES", column_bytes)
    x, weight, bias = make(3, 4, 6, 7), make(4, 4 // groups, 3, 3, seed=1), make(4, seed=2)
    pairs = [p if isinstance(p, tuple) else (p, p) for p in (stride, padding)]
    arrays = [to_numpy(t.data) for t in (x, weight, bias)]
    close(F.conv2d(x, weight, bias, stride, padding, groups=groups), naive.conv2d(*arrays, *pairs, groups))
    check(lambda x, w, b: F.conv2d(x, w, b, stride, padding, groups=groups), x, weight, bias)
    check(lambda x, w: F.conv2d(x, w, None, stride, padding, groups=groups), x, weight)


@given(data=st.data())
def test_max_pool2d_matches_its_definition(device, data):
    draw = data.draw
    kernel, stride = (draw(small), draw(small)), (draw(small), draw(small))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    H, W = (draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, padding, strict=True))
    ceil_mode = draw(st.booleans())
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(-3, 3, (draw(st.integers(0, 3)), 2, H, W))
    x = Tensor(to_device(values.astype(np.float64), device), requires_grad=True)
    y = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode)
    close(y, naive.max_pool2d(values, kernel, stride, padding, ceil_mode))
    y.sum().backward()
    assert x.grad.sum() == y.data.size


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("arguments", [(3, 2), (2,), (3, 1), (2, 3), ((2, 3), (1, 2)), (3, 2, 1)])
@pytest.mark.parametrize("chunk_bytes", [1, 2 << 20])
def test_max_pool2d_gradient(make, monkeypatch, arguments, ceil_mode, chunk_bytes):
    from minidl import threads

    monkeypatch.setattr(threads, "CHUNK_BYTES", chunk_bytes)
    check(lambda x: F.max_pool2d(x, *arguments, ceil_mode=ceil_mode), make(2, 3, 6, 7))


@given(data=st.data())
def test_max_pool2d_is_the_same_for_few_and_many_images(data):
    """For few images NumPy's kernel splits the columns into several arrays; the results are the same."""
    draw = data.draw
    kernel, stride = (tuple(draw(st.integers(1, 4)) for _ in range(2)) for _ in range(2))
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    shape = (draw(st.integers(0, 3)), 2, *(size + draw(small) for size in kernel))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(-3, 4, shape).astype(float)
    found = []
    for short_run in (0, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(numpy_kernels, "SHORT_RUN", short_run)
            x = Tensor(values, requires_grad=True)
            y = F.max_pool2d(x, kernel, stride, padding)
            y.backward(np.random.default_rng(0).standard_normal(y.shape))
            found.append((y.data, x.grad))
    for few, many in zip(*found, strict=True):
        np.testing.assert_array_equal(few, many)


def test_max_pool2d_sends_the_gradient_of_a_tie_to_the_first_maximum(device):
    x = Tensor(to_device(np.zeros((1, 1, 4, 4)), device), requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert_array_equal(to_numpy(x.grad)[0, 0], [[1, 0, 1, 0], [0] * 4, [1, 0, 1, 0], [0] * 4])


def test_max_pool2d_takes_windows_of_more_than_255_elements(make):
    check(lambda x: F.max_pool2d(x, 17), make(1, 1, 17, 17))


def test_max_pool2d_sends_the_gradient_to_the_last_element_of_a_very_large_window(device):
    """On a GPU, positions in a window are uint16, so a larger one is refused."""
    for size in (256, 257):
        x = np.zeros((1, 1, size, size))
        x[0, 0, -1, -1] = 1
        x = Tensor(to_device(x, device), requires_grad=True)
        if size == 257 and device != "numpy":
            with pytest.raises(ValueError, match="max_pool2d on a GPU takes windows of at most 65,536 elements; got"):
                F.max_pool2d(x, size)
        else:
            F.max_pool2d(x, size).sum().backward()
            assert x.grad[0, 0, -1, -1] == x.grad.sum() == 1


@pytest.mark.parametrize("algorithm", ["auto", "im2col"])
def test_a_bias_need_not_be_contiguous(device, algorithm):
    draws = np.random.default_rng(0)
    x, weight, bias = (draws.standard_normal(shape).astype(np.float32) for shape in ((4, 8, 8, 8), (8, 8, 3, 3), (16,)))
    x, weight, bias = (to_device(array, device) for array in (x, weight, bias))
    with F.convolution_algorithm(algorithm):
        y = F.conv2d(x, weight, Tensor(bias)[::2], padding=1)
        close(y, F.conv2d(x, weight, Tensor(bias[::2].copy()), padding=1).data)
    z = F.linear(x[:, :, 0, 0], weight[:, :, 0, 0], Tensor(bias)[::2])
    close(z, F.linear(x[:, :, 0, 0], weight[:, :, 0, 0], Tensor(bias[::2].copy())).data)


def test_batch_norm_without_channels(device):
    x = Tensor(to_device(np.zeros((4, 0, 2, 2)), device))
    assert F.batch_norm(x, None, None, training=True).shape == (4, 0, 2, 2)


def test_max_pool2d_of_nan_is_nan(device):
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = np.nan
    assert np.isnan(F.max_pool2d(Tensor(to_device(x, device)), 3).item())


@given(data=st.data())
def test_avg_pool2d_matches_its_definition(device, data):
    draw = data.draw
    kernel, stride = (draw(small), draw(small)), (draw(small), draw(small))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    H, W = (draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, padding, strict=True))
    settings = draw(st.booleans()), draw(st.booleans()), draw(st.none() | small)
    values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal((draw(st.integers(0, 3)), 2, H, W))
    y = F.avg_pool2d(Tensor(to_device(values, device)), kernel, stride, padding, *settings)
    close(y, naive.avg_pool2d(values, kernel, stride, padding, *settings))


@given(N=st.integers(0, 3), image=st.tuples(st.integers(1, 9), st.integers(1, 9)), output=st.tuples(small, small))
def test_adaptive_avg_pool2d_matches_its_definition(device, N, image, output):
    """Also for outputs larger than the image: an element is then in several windows."""
    values = np.random.default_rng(0).standard_normal((N, 2, *image))
    y = F.adaptive_avg_pool2d(Tensor(to_device(values, device)), output)
    close(y, naive.adaptive_avg_pool2d(values, output))


@pytest.mark.parametrize(
    "arguments", [(3, 2), (2,), ((2, 3), (1, 2), 1), (3, 2, 1, True), (3, 2, 1, True, False), (2, 1, 0, False, True, 3)]
)
def test_avg_pool2d_gradient(make, arguments):
    check(lambda x: F.avg_pool2d(x, *arguments), make(2, 3, 6, 7))


@pytest.mark.parametrize("output_size", [1, 3, (2, 5), (8, 9), (None, 4)])
def test_adaptive_avg_pool2d_gradient(make, output_size):
    check(lambda x: F.adaptive_avg_pool2d(x, output_size), make(2, 2, 5, 7))


def test_adaptive_avg_pool2d_keeps_the_length_of_an_axis_of_none(make):
    assert F.adaptive_avg_pool2d(make(1, 2, 5, 7), (None, 3)).shape == (1, 2, 5, 3)


def test_ceil_mode_allows_a_window_larger_than_the_image(make):
    """There is one window, cut to the image, as in PyTorch."""
    x = make(1, 1, 3, 11)
    assert F.avg_pool2d(x, 5, ceil_mode=True).shape == F.max_pool2d(x, 5, ceil_mode=True).shape == (1, 1, 1, 3)
    assert_allclose(to_numpy(F.avg_pool2d(x, 5, ceil_mode=True).data)[0, 0, 0, 0], to_numpy(x.data)[0, 0, :, :5].mean())
    check(lambda x: F.max_pool2d(x, 5, ceil_mode=True), x)


def test_avg_pool2d_of_infinity_changes_only_its_windows(device):
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 0, 0] = np.inf
    y = F.avg_pool2d(Tensor(to_device(x, device)), 2)
    assert_array_equal(to_numpy(y.data)[0, 0], [[np.inf, 0], [0, 0]])


@pytest.mark.parametrize("padding", [(0, 3, 0, 3), (1, 0, 2, 1), (0, 0, 0, 0)])
def test_pad(make, padding):
    x = make(2, 3, 4, 5)
    left, right, top, bottom = padding
    close(F.pad(x, padding), np.pad(to_numpy(x.data), ((0, 0), (0, 0), (top, bottom), (left, right))))
    check(lambda x: F.pad(x, padding), x)


@pytest.mark.parametrize("chunk_bytes", [1, 2 << 20])
def test_batch_norm(make, monkeypatch, chunk_bytes):
    from minidl import threads

    monkeypatch.setattr(threads, "CHUNK_BYTES", chunk_bytes)
    x, weight, bias = make(3, 4, 2, 3), make(4, seed=1), make(4, seed=2)
    y = F.batch_norm(x, None, None, weight, bias, training=True)
    close(y, naive.batch_norm(*[to_numpy(t.data) for t in (x, weight, bias)], eps=1e-5))
    check(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), x, weight, bias)
    check(lambda x: F.batch_norm(x, training=True), x)
    check(lambda x: F.batch_norm(x, training=True), make(5, 3, seed=4))


def test_batch_norm_in_evaluation(make):
    x, weight, bias = make(3, 4, 2, 3), make(4, seed=1), make(4, seed=2)
    mean, var = make(4, seed=3).data, make(4, seed=4).data ** 2
    y = F.batch_norm(x, mean, var, weight, bias)
    axes = (1, 4, 1, 1)
    scaled = (x.data - mean.reshape(axes)) / np.sqrt(var.reshape(axes) + 1e-5)
    close(y, to_numpy(scaled * weight.data.reshape(axes) + bias.data.reshape(axes)))
    check(lambda x, w, b: F.batch_norm(x, mean, var, w, b), x, weight, bias)


def test_batch_norm_in_evaluation_keeps_the_statistics_of_forward(make):
    """Its gradient belongs to the values of forward, even if the running statistics change before backward."""
    gradients = []
    for moved in (False, True):
        x, weight, bias = make(3, 4, 2, 3), make(4, seed=1), make(4, seed=2)
        mean, var = make(4, seed=3).data, make(4, seed=4).data ** 2
        y = F.batch_norm(x, mean, var, weight, bias)
        if moved:
            F.batch_norm(make(3, 4, 2, 3, seed=9), mean, var, training=True, momentum=0.9)
        (y * y).sum().backward()
        gradients.append([to_numpy(t.grad) for t in (x, weight, bias)])
    for one, other in zip(*gradients, strict=True):
        assert_array_equal(one, other)


def test_batch_norm_updates_the_running_statistics(make):
    x = make(3, 4, 2, 3)
    mean, var = x.data[0, :, 0, 0].copy(), abs(x.data[0, :, 0, 0])
    expected_mean = 0.8 * mean + 0.2 * x.data.mean(axis=(0, 2, 3))
    expected_var = 0.8 * var + 0.2 * x.data.var(axis=(0, 2, 3)) * 18 / 17
    F.batch_norm(x, mean, var, training=True, momentum=0.2)
    assert_allclose(mean, expected_mean)
    assert_allclose(var, expected_var)


def test_batch_norm_is_accurate_far_from_zero():
    """The variance is the mean of (x - E[x])^2; in float32, E[x^2] - E[x]^2 would be only rounding errors here."""
    values = np.random.default_rng(0).standard_normal((64, 1, 16, 16)) + 1000
    exact = naive.batch_norm(values.astype(np.float32).astype(np.float64), np.ones(1), np.zeros(1), 1e-5)
    y = F.batch_norm(Tensor(values.astype(np.float32)), training=True)
    assert_allclose(y.data, exact, atol=5e-4)


@given(data=st.data())
def test_local_response_norm_matches_its_definition(device, data):
    draw = data.draw
    groups = draw(st.integers(1, 3))
    shape = (draw(st.integers(0, 3)), groups * draw(st.integers(1, 9)), draw(small), draw(small))
    values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape)
    arguments = draw(st.integers(1, 11)), 0.5, draw(st.sampled_from([0.75, 0.5, 1.0])), 2.0, draw(CONVENTIONS)
    y = F.local_response_norm(Tensor(to_device(values, device)), *arguments, groups=groups)
    close(y, naive.local_response_norm(values, *arguments, groups))


def test_the_conventions_of_local_response_norm_differ_as_documented(make):
    """The formula in Krizhevsky 2012 is n times stronger than the paper's code; TensorFlow's size is a radius."""
    x = make(2, 9, 2, 3)
    paper = F.local_response_norm(x, 5, 1e-4, 0.75, 2.0, "paper")
    close(paper, to_numpy(F.local_response_norm(x, 5, 5e-4, 0.75, 2.0).data))
    close(paper, to_numpy(F.local_response_norm(x, 2, 1e-4, 0.75, 2.0, "tensorflow").data))
    even = F.local_response_norm(x, 4, 0.1, convention="paper")
    close(even, to_numpy(F.local_response_norm(x, 5, 0.5).data))


def test_local_response_norm_of_tensorflow_matches_a_hand_calculation():
    """The formula in TensorFlow's documentation with its defaults: depth_radius 5, bias 1, alpha 1, beta 0.5."""
    y = F.local_response_norm(Tensor(np.array([2.0, 2.0, 1.0]).reshape(1, 3, 1, 1)), 5, 1.0, 0.5, 1.0, "tensorflow")
    assert_allclose(y.data.ravel(), np.array([2, 2, 1]) / np.sqrt(10))


@pytest.mark.parametrize(
    "size, convention", [(1, "pytorch"), (2, "pytorch"), (5, "pytorch"), (20, "pytorch"), (4, "paper"), (1, "tensorflow")]
)
@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("chunk_bytes", [1, 2 << 20])
def test_local_response_norm_gradient(make, monkeypatch, size, convention, beta, chunk_bytes):
    from minidl import threads

    monkeypatch.setattr(threads, "CHUNK_BYTES", chunk_bytes)
    for groups in (1, 2):
        check(lambda x: F.local_response_norm(x, size, 0.5, beta, 2.0, convention, groups=groups), make(2, 8, 3, 2))  # noqa: B023


@given(N=st.integers(0, 4), features=small, outputs=small, biased=st.booleans())
def test_linear_matches_its_definition(device, N, features, outputs, biased):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((N, features), (outputs, features), (outputs,))]
    if not biased:
        arrays[2] = None
    close(F.linear(*[None if a is None else Tensor(to_device(a, device)) for a in arrays]), naive.linear(*arrays))


def test_linear_gradient(make):
    check(F.linear, make(3, 4), make(2, 4, seed=1), make(2, seed=2))
    check(F.linear, make(3, 4), make(2, 4, seed=1))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2, 2)])
def test_activations(make, shape):
    x = make(*shape)
    close(F.sigmoid(x), 1 / (1 + np.exp(-to_numpy(x.data))))
    check(F.sigmoid, x)
    close(F.relu(x), np.where(to_numpy(x.data) > 0, to_numpy(x.data), 0))
    close(F.tanh(x), np.sinh(to_numpy(x.data)) / np.cosh(to_numpy(x.data)))
    check(F.relu, x)
    check(F.tanh, x)


def test_sigmoid_of_large_and_infinite_numbers(device):
    y = F.sigmoid(Tensor(to_device(np.array([-np.inf, -800.0, -40.0, 40.0, 800.0, np.inf, np.nan]), device)))
    assert_array_equal(to_numpy(y.data), [0, 0, np.exp(-40), 1, 1, 1, np.nan])


@pytest.mark.parametrize("shape, p", [((4, 6), 0.5), ((3, 2, 3, 3), 0.3), ((5,), 0.5), ((2, 3), 0.0), ((2, 3), 1.0)])
def test_dropout(make, shape, p):
    x = make(*shape)
    with random.context(seed=3, step=7):
        y = F.dropout(x, p, key=2)
    # The definition: an element is kept or dropped by the random word of (feature, key, sample, step).
    expected = np.zeros(shape)
    for index in np.ndindex(*shape):
        feature = np.ravel_multi_index(index[1:], shape[1:]) if len(shape) > 1 else 0
        word = random.philox4x32((feature // 4, 2, index[0], 7), (3, 0))[feature % 4]
        expected[index] = x.data[index] / (1 - p) if word >= p * 2**32 and p < 1 else 0
    close(y, expected)
    if p < 1:

        def fn(x):
            with random.context(seed=3, step=7):
                return F.dropout(x, p, key=2)

        check(fn, x)
    assert F.dropout(x, p, training=False) is x


def test_softmax_and_log_softmax(make):
    x = make(3, 5)
    close(F.softmax(x), naive.softmax(to_numpy(x.data)))
    close(F.log_softmax(x), np.log(naive.softmax(to_numpy(x.data))))
    close(F.softmax(x, axis=0), naive.softmax(to_numpy(x.data).T).T)
    for axis in (0, 1, -1):
        check(lambda x, axis=axis: F.softmax(x, axis), x)
        check(lambda x, axis=axis: F.log_softmax(x, axis), x)


def test_softmax_does_not_overflow():
    x = Tensor([[1000.0, 0.0], [-1000.0, 0.0]])
    assert_array_equal(F.softmax(x).data, [[1, 0], [0, 1]])
    assert_array_equal(F.log_softmax(x).data, [[0, -1000], [-1000, 0]])
    assert F.cross_entropy(x, [1, 0]).item() == 1000


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(make, label_smoothing):
    x, labels = make(4, 3), np.array([2, 0, 1, 1])
    losses = naive.cross_entropy(to_numpy(x.data), labels, label_smoothing)
    for reduction, value in {"none": losses, "sum": losses.sum(), "mean": losses.mean()}.items():
        close(F.cross_entropy(x, labels, label_smoothing, reduction), np.asarray(value))
        close(F.cross_entropy(x, Tensor(labels), label_smoothing, reduction), np.asarray(value))
        check(lambda x, reduction=reduction: F.cross_entropy(x, labels, label_smoothing, reduction), x)


# --- properties of all functions -----------------------------------------------------------------------------------

FUNCTIONS = {
    "conv2d": (lambda x, w: F.conv2d(x, w, padding=1), [(2, 3, 5, 5), (4, 3, 3, 3)]),
    "conv2d by winograd": (lambda x, w: F.conv2d(x, w), [(2, 64, 9, 9), (64, 64, 3, 3)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2), [(2, 3, 5, 5)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2), [(2, 3, 5, 5)]),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 3), [(2, 3, 5, 5)]),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1)), [(2, 3, 5, 5)]),
    "batch_norm": (lambda x: F.batch_norm(x, training=True), [(2, 3, 5, 5)]),
    "local_response_norm": (lambda x: F.local_response_norm(x, 5, 0.1), [(2, 3, 5, 5)]),
    "relu": (F.relu, [(2, 3, 5, 5)]),
    "tanh": (F.tanh, [(2, 3, 5, 5)]),
    "sigmoid": (F.sigmoid, [(2, 3, 5, 5)]),
    "dropout": (lambda x: F.dropout(x, key=1), [(2, 3, 5, 5)]),
    "linear": (F.linear, [(4, 3), (2, 3)]),
    "softmax": (F.softmax, [(4, 3)]),
    "log_softmax": (F.log_softmax, [(4, 3)]),
    "cross_entropy": (lambda x: F.cross_entropy(x, np.array([0, 1, 2, 1])), [(4, 3)]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_two_forwards_before_their_backwards_do_not_disturb_each_other(make, name):
    """The scratch memory of a second call must not change what the first forward keeps, nor its output."""
    fn, shapes = FUNCTIONS[name]

    def gradients(interleaved):
        results = []
        with random.context(0, 0):
            runs = []
            for seed in (0, 10):
                inputs = [make(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
                output = fn(*inputs)
                runs.append((inputs, output, to_numpy(output.data).copy()))
                if not interleaved:
                    output.sum().backward()
            for inputs, output, value in runs:
                if interleaved:
                    output.sum().backward()
                assert_array_equal(to_numpy(output.data), value)
                results.append([to_numpy(x.grad) for x in inputs])
        return results

    for one, other in zip(gradients(True), gradients(False), strict=True):
        for a, b in zip(one, other, strict=True):
            assert_array_equal(a, b)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_are_not_written(make, device, name):
    fn, shapes = FUNCTIONS[name]
    inputs = [make(*shape, seed=i) for i, shape in enumerate(shapes)]
    before = [to_numpy(x.data).copy() for x in inputs]
    y = fn(*inputs)
    grad = to_device(np.ones(y.shape), device)
    y.backward(grad)
    assert_array_equal(grad, np.ones(y.shape))
    for x, value in zip(inputs, before, strict=True):
        assert_array_equal(to_numpy(x.data), value)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"softmax", "log_softmax"}))
def test_an_empty_batch_has_zero_gradients(make, name):
    """A device may get no image of the last batch, and must still compute."""
    fn, shapes = FUNCTIONS[name]
    inputs = [make(0, *shapes[0][1:])] + [make(*shape, seed=1) for shape in shapes[1:]]
    y = (lambda x: F.cross_entropy(x, np.zeros(0, int), reduction="sum"))(*inputs) if name == "cross_entropy" else fn(*inputs)
    y.sum().backward()
    for x in inputs:
        assert x.grad.shape == x.shape and not x.grad.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_dtype_is_kept(device, dtype, name):
    fn, shapes = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    inputs = [Tensor(to_device(rng.standard_normal(shape).astype(dtype), device), requires_grad=True) for shape in shapes]
    y = fn(*inputs)
    assert y.dtype == dtype
    y.sum().backward()
    assert all(x.grad.dtype == dtype for x in inputs)


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if len(FUNCTIONS[n][1][0]) == 4])
def test_image_layers_return_batch_last_memory(make, name):
    fn, shapes = FUNCTIONS[name]
    inputs = [make(*shape, seed=i) for i, shape in enumerate(shapes)]
    y = fn(*inputs)
    assert np.shares_memory(to_batch_last(y.data), y.data)


# --- errors --------------------------------------------------------------------------------------------------------

T = lambda *shape: Tensor(np.zeros(shape))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: F.conv2d(T(3, 8, 8), T(4, 3, 3, 3)), r"\(N, C, H, W\); got \(3, 8, 8\)"),
        (lambda: F.conv2d(T(1, 3, 8, 8), T(4, 2, 3, 3)), r"got x \(1, 3, 8, 8\) and weight \(4, 2, 3, 3\)"),
        (lambda: F.conv2d(T(1, 4, 8, 8), T(3, 2, 3, 3), groups=2), r"groups=2.*weight \(3, 2, 3, 3\)"),
        (lambda: F.conv2d(T(1, 3, 2, 8), T(4, 3, 5, 3), padding=1), r"kernel \(5, 3\) does not fit the image \(2, 8\)"),
        (lambda: F.conv2d(T(1, 3, 8, 8), T(4, 3, 3, 3), T(3)), r"bias of shape \(4,\); got \(3,\)"),
        (lambda: F.conv2d(T(1, 3, 8, 8), T(4, 3, 3)), r"weight of shape .*; got \(4, 3, 3\)"),
        (lambda: F.conv2d(T(1, 3, 8, 8), T(4, 3, 3, 3), stride=0), "stride must be an integer of at least 1.*got 0"),
        (lambda: F.conv2d(T(1, 3, 8, 8), T(4, 3, 3, 3), padding=(1, -1)), r"padding must be .* got \(1, -1\)"),
        (lambda: F.max_pool2d(T(1, 3, 2, 8), 3), r"window 3 is larger than H = 2.*\(1, 3, 2, 8\)"),
        (lambda: F.max_pool2d(T(1, 3, 8, 8), 3, padding=2), r"padding \(2, 2\) is more than half"),
        (lambda: F.max_pool2d(T(1, 3, 8), 3), r"got \(1, 3, 8\)"),
        (lambda: F.avg_pool2d(T(1, 3, 2, 8), 3), r"avg_pool2d: the window 3 is larger than H = 2"),
        (lambda: F.avg_pool2d(T(1, 3, 8, 8), 2, divisor_override=0), "divisor_override, an integer of at least 1; got 0"),
        (lambda: F.adaptive_avg_pool2d(T(1, 3, 8, 8), (3, 0)), r"output_size must be .* got \[3, 0\]"),
        (lambda: F.adaptive_avg_pool2d(T(3, 8, 8), 3), r"got \(3, 8, 8\)"),
        (lambda: F.adaptive_avg_pool2d(T(1, 3, 0, 8), 3), r"at least one pixel; got \(1, 3, 0, 8\)"),
        (lambda: F.avg_pool2d(T(1, 3, 8, 8), 2, divisor_override="4"), "an integer of at least 1; got '4'"),
        (lambda: F.pad(T(1, 3, 8, 8), 3), "got 3"),
        (lambda: F.max_pool2d(T(1, 3, 8, 8), True), "kernel_size must be an integer .* got True"),
        (lambda: F.conv2d(T(1, 4, 8, 8), T(4, 2, 3, 3), groups=2.0), "groups, an integer of at least 1; got 2.0"),
        (lambda: F.pad(T(1, 3, 8, 8), (1, 1)), r"\(left, right, top, bottom\); got \(1, 1\)"),
        (lambda: F.pad(T(1, 3, 8, 8), (1, 0, -1, 0)), r"at least 0.*got \(1, 0, -1, 0\)"),
        (lambda: F.batch_norm(T(3)), r"got \(3,\)"),
        (lambda: F.batch_norm(T(2, 3), weight=T(4), training=True), r"weight of shape \(3,\); got \(4,\)"),
        (lambda: F.batch_norm(T(2, 3)), "needs running_mean"),
        (lambda: F.batch_norm(T(1, 3), training=True), r"more than one value a channel; got x \(1, 3\)"),
        (lambda: F.local_response_norm(T(2, 3), 5), r"got \(2, 3\)"),
        (lambda: F.local_response_norm(T(1, 3, 2, 2), 0), "at least 1; got 0"),
        (lambda: F.local_response_norm(T(1, 3, 2, 2), 5.0), "an integer of at least 1; got 5.0"),
        (lambda: F.local_response_norm(T(1, 3, 2, 2), 5, convention=["paper"]), r"got \['paper'\]"),
        (lambda: F.local_response_norm(T(1, 3, 2, 2), 5, convention="caffe"), "pytorch, paper, tensorflow; got 'caffe'"),
        (lambda: F.linear(T(2, 3), T(4, 5)), r"got \(2, 3\) and \(4, 5\)"),
        (lambda: F.linear(T(2, 3), T(4, 3), T(3)), r"bias of shape \(4,\); got \(3,\)"),
        (lambda: F.dropout(T(2, 3), 1.5), "between 0 and 1; got 1.5"),
        (lambda: F.dropout(T(), 0.5), "got a single number"),
        (lambda: F.cross_entropy(T(2, 3), [0, 1, 2]), r"got \(2, 3\) and \(3,\)"),
        (lambda: F.cross_entropy(T(2, 3), [0, 3]), r"labels must lie in 0..2; found 0 to 3"),
        (lambda: F.cross_entropy(T(2, 3), [-1, 1]), r"found -1 to 1"),
        (lambda: F.cross_entropy(T(2, 3), [0.0, 1.0]), "integer labels; got float32"),
        (lambda: F.cross_entropy(T(2, 3), [0, 1], reduction="average"), "got 'average'"),
        (lambda: F.cross_entropy(T(2, 3), [0, 1], label_smoothing=2), "got 2"),
    ],
)
def test_an_error_names_the_wrong_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_numpy_integers_are_accepted_as_integers():
    two = np.int64(2)
    assert F.max_pool2d(T(1, 3, 8, 8), two, (two, 1)).shape == (1, 3, 4, 7)
    assert F.pad(T(1, 3, 8, 8), (two, 0, 0, 0)).shape == (1, 3, 8, 10)
    assert F.local_response_norm(T(1, 3, 2, 2), two).shape == (1, 3, 2, 2)
