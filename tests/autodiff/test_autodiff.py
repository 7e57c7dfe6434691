"""The autodiff engine: sums of gradients, broadcasting, freed memory, hooks, and errors that say what is wrong."""

import contextlib
import copy
import gc
import operator
import pickle
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import minidl.functional as F
from minidl import Function, Tensor, detect_anomaly, nn, no_grad, use_kernels
from minidl.backend import to_device, to_numpy
from minidl.optim import SGD

from ..helpers.compare import assert_allclose, assert_array_equal


def test_gradients_add_up_when_a_tensor_is_used_twice(make):
    x = make(3)
    y = x * x + x
    (y + y).sum().backward()
    assert_allclose(x.grad, 2 * (2 * x.data + 1))


def test_both_operands_share_a_gradient_but_not_its_memory(make):
    a, b = make(3), make(3)
    (a + b).sum().backward()
    (a * 1).sum().backward()
    assert_array_equal(a.grad, [2, 2, 2])
    assert_array_equal(b.grad, [1, 1, 1])


def test_gradients_add_up_over_two_backward_passes(make):
    x = make(3)
    for _ in range(2):
        (x * 3).sum().backward()
    assert_array_equal(x.grad, [6, 6, 6])


def test_backward_walks_a_chain_of_50000_operations():
    x = y = Tensor([1.0], requires_grad=True)
    for _ in range(50_000):
        y = y + 0.0
    y.backward()
    assert x.grad == [1.0]


def test_a_chain_of_50000_operations_can_be_dropped_without_backward():
    y = Tensor([1.0], requires_grad=True)
    for _ in range(50_000):
        y = y + 0.0
    del y


def test_backward_calls_each_operation_once_though_there_are_many_paths(make):
    x = y = make(1)
    for _ in range(60):  # 2 ** 60 paths
        y = (y + y) * 0.5
    y.sum().backward()
    assert_allclose(x.grad, [1.0])


@pytest.mark.parametrize(
    "left, right", [((2, 3), (3,)), ((2, 3), ()), ((2, 1), (1, 3)), ((4, 2, 3), (2, 1)), ((1,), (2, 3)), ((0, 3), (3,))]
)
@pytest.mark.parametrize(
    "operation, derivatives",
    [
        (operator.add, lambda a, b: (1, 1)),
        (operator.sub, lambda a, b: (1, -1)),
        (operator.mul, lambda a, b: (b, a)),
        (operator.truediv, lambda a, b: (1 / b, -a / b**2)),
    ],
)
def test_gradients_of_broadcast_operands_have_the_shapes_of_the_operands(make, left, right, operation, derivatives):
    a, b = make(*left), make(*right, seed=1)
    y = operation(a, b)
    y.sum().backward()
    assert a.grad.shape == left and b.grad.shape == right
    assert_allclose(y.data, operation(a.data, b.data))
    da, db = (np.broadcast_to(d, y.shape) for d in derivatives(a.data, b.data))
    for tensor, full in ((a, da), (b, db)):
        expected = np.zeros(tensor.shape)
        for index in np.ndindex(*full.shape):  # add the gradient of each element of y to the element that it came from
            source = index[full.ndim - tensor.ndim :]
            expected[tuple(0 if n == 1 else i for i, n in zip(source, tensor.shape, strict=True))] += full[index]
        assert_allclose(tensor.grad, expected, atol=1e-12)


def test_numbers_and_arrays_may_be_on_either_side(make, device):
    x = make(2, 3)
    array = to_device(np.full((2, 3), 2.0), device)
    for y, value in [
        (1 + x, 1 + x.data),
        (1 - x, 1 - x.data),
        (2 * x, 2 * x.data),
        (1 / x, 1 / x.data),
        (array + x, array + x.data),
        (array - x, array - x.data),
        (array @ x.transpose(), array @ x.data.T),
        (x**2, x.data**2),
        (-x, -x.data),
    ]:
        assert isinstance(y, Tensor) and y.requires_grad
        assert_allclose(y.data, value)


def test_python_numbers_do_not_widen_float32():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = (2.0 * x + 1) / 3 - 0.5
    assert x.dtype == y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32


def test_an_integer_tensor_and_a_fraction_give_a_floating_point_tensor():
    whole = Tensor(np.array([1, 2, 3]))
    assert_array_equal((whole * 1.5).data, [1.5, 3.0, 4.5])
    assert_array_equal((0.5 + whole).data, [1.5, 2.5, 3.5])
    assert (whole * 2).dtype == np.int64
    assert_array_equal((Tensor(np.array([True, False])) * 2).data, [2, 0])
    for number in (np.int64(2), np.float64(2), np.float32(2)):
        assert (Tensor([1.0]) * number).dtype == np.float32


def test_mixed_dtypes_give_each_input_a_gradient_of_its_own_dtype():
    a, b = Tensor(np.ones(2, np.float32), True), Tensor(np.ones(2), True)
    (a * b).sum().backward()
    assert a.grad.dtype == np.float32 and b.grad.dtype == np.float64


def test_backward_knows_which_gradients_are_needed():
    asked = []

    class Product(Function):
        def forward(self, a, b):
            self.a, self.b = a, b
            return a * b

        def backward(self, grad):
            asked.append(self.needs_grad)
            return None, grad * self.a

    image, weight = Tensor([2.0]), Tensor([3.0], requires_grad=True)
    Product()(image, weight).backward()
    assert asked == [(False, True)]
    assert image.grad is None and weight.grad == [2.0]


def test_conv1_computes_no_gradient_of_the_image(monkeypatch):
    from minidl.kernels import columns

    monkeypatch.setattr(columns, "conv2d_input_gradient", lambda *_: pytest.fail("nobody needs it"))
    weight = Tensor(np.ones((1, 1, 3, 3)), requires_grad=True)
    F.conv2d(Tensor(np.ones((1, 1, 4, 4))), weight).sum().backward()
    assert_array_equal(weight.grad, np.full((1, 1, 3, 3), 4.0))


def test_backward_frees_the_graph_step_by_step():
    """With the garbage collector off, each activation is freed as soon as its backward is done."""
    alive = []
    references = []

    class Watched(Function):
        def forward(self, x):
            self.kept = np.array(x)
            references.append(weakref.ref(self.kept))
            return self.kept * 2

        def backward(self, grad):
            alive.append(sum(reference() is not None for reference in references))
            return grad * 2

    gc.disable()
    try:
        x = y = Tensor(np.ones(3), requires_grad=True)
        for _ in range(4):
            y = Watched()(y)
        loss = y.sum()
        del y
        loss.backward()
        assert alive == [4, 3, 2, 1]
        assert all(reference() is None for reference in references)
    finally:
        gc.enable()
    assert_array_equal(x.grad, [16, 16, 16])


@pytest.mark.parametrize("first", [0, 1])
def test_only_uses_after_requires_grad_was_set_count(make, first):
    x, y = make(3), make(3, seed=1)
    x.requires_grad = False
    product = x * y
    x.requires_grad = True
    terms = [product, x * x]
    (terms[first] + terms[1 - first]).sum().backward()
    assert_allclose(x.grad, 2 * x.data)
    assert_allclose(y.grad, x.data)


def test_no_grad_records_nothing(make):
    x = make(3)
    with no_grad():
        y = x * 2
        with no_grad():
            pass
        assert not (x * 2).requires_grad
    assert not y.requires_grad and y.creator is None
    assert (x * 2).requires_grad


def test_no_grad_ends_when_an_error_leaves_it(make):
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (make(1) * 2).requires_grad


def test_no_grad_can_be_nested_and_used_as_a_decorator(make):
    x, quiet = make(3), no_grad()
    with quiet, quiet:
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @no_grad()
    def twice(x):
        return x * 2

    assert not twice(x).requires_grad and (x * 2).requires_grad


def test_retain_grad_keeps_the_gradient_of_an_intermediate_tensor(make):
    x = make(3)
    h = x * 2
    h.retain_grad()
    (h * h).sum().backward()
    assert_allclose(h.grad, 2 * h.data)
    assert_allclose(x.grad, 4 * h.data)
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        Tensor([1.0]).retain_grad()


def test_an_input_may_be_none_and_backward_may_return_a_list():
    class Shift(Function):
        def forward(self, x, shift):
            return x * 1 if shift is None else x + shift

        def backward(self, grad):
            return [grad, grad]

    x = Tensor([1.0, 2.0], requires_grad=True)
    (Shift()(x, None) + Shift()(x, x)).sum().backward()
    assert_array_equal(x.grad, [3, 3])


def test_detach_cuts_the_graph(make):
    x = make(3)
    y = (x * 2).detach()
    assert not y.requires_grad and np.shares_memory(y.data, y.detach().data)


def test_on_gradient_ready_is_called_once_after_the_last_use():
    fired = []
    x, w = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
    for tensor in (x, w):
        tensor.on_gradient_ready = lambda tensor: fired.append((tensor, tensor.grad.copy()))
    h = x * w
    (h * w + w).sum().backward()  # x w^2 + w
    assert len(fired) == 2
    assert dict(fired)[x] == [9.0] and dict(fired)[w] == [13.0]


def test_a_leaf_is_ready_before_backward_reaches_earlier_layers():
    order = []
    first, second = Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    first.on_gradient_ready = lambda _: order.append("first")
    second.on_gradient_ready = lambda _: order.append("second")
    ((Tensor([1.0]) * first) * second).backward()
    assert order == ["second", "first"]


def test_a_gradient_is_written_into_its_buffer():
    x = Tensor([1.0, 2.0], requires_grad=True)
    x.grad_buffer = buffer = np.full(2, 7.0, np.float32)
    (x * 3).sum().backward()
    assert x.grad is buffer
    (x * 3).sum().backward()
    assert x.grad is buffer and list(buffer) == [6, 6]


@pytest.mark.parametrize("layer", ["linear", "im2col", "winograd"])
def test_the_gradient_of_a_weight_is_written_into_its_buffer(layer, monkeypatch):
    """Into the optimiser's buffer without a copy if the weight is used once; added if it is used again."""
    rng = np.random.default_rng(0)
    shape = (64, 64) if layer == "linear" else (64, 64, 3, 3)
    x = rng.standard_normal((2, 64) if layer == "linear" else (2, 64, 9, 9))

    def call(x, w):
        with F.convolution_algorithm("im2col" if layer == "im2col" else "auto"):
            return F.linear(x, w) if layer == "linear" else F.conv2d(x, w, padding=1)

    def gradient(uses, packed, passes=1):
        w = Tensor(weight.copy(), requires_grad=True)
        if packed:
            w.grad_buffer = np.full(shape, 7.0)
        for _ in range(passes):
            y = Tensor(x)
            for _ in range(uses):
                y = call(y, w)
            (y * y).sum().backward()
        assert not packed or w.grad is w.grad_buffer
        return w.grad

    weight = rng.standard_normal(shape) / 10
    for uses, passes in ((1, 1), (2, 1), (1, 2), (3, 2)):
        assert_allclose(gradient(uses, True, passes), gradient(uses, False, passes), rtol=1e-10)
    given = []
    original = Function.input_gradients
    monkeypatch.setattr(Function, "input_gradients", lambda f, grad: given.append(original(f, grad)) or given[-1])
    w = Tensor(weight.copy(), requires_grad=True)
    w.grad_buffer = np.empty(shape)
    y = call(Tensor(x), w)
    assert layer == "linear" or (y.creator.winograd_tile is not None) == (layer == "winograd")
    y.sum().backward()
    assert given[-1][1] is w.grad_buffer


# --- changes between a forward and its backward --------------------------------------------------------------------


def spoil_weight(x, w, y):
    w.data -= 0.1


def spoil_output(x, w, y):
    y.data += 0.1


@pytest.mark.parametrize("spoil", [spoil_weight, spoil_output])
def test_an_in_place_change_of_an_array_that_backward_needs_is_an_error(make, spoil):
    """relu keeps its output, and linear keeps its weight."""
    x, w = make(2, 3), make(4, 3, seed=1)
    y = F.relu(F.linear(x, w))
    spoil(x, w, y)
    what = (
        "Linear needs its input 1, of shape \\(4, 3\\)" if spoil is spoil_weight else "ReLU needs its output, of shape \\(2, 4\\)"
    )
    with pytest.raises(RuntimeError, match=what + ", for backward, but it was changed in place"):
        y.sum().backward()


def test_an_in_place_change_is_noticed_if_a_view_is_kept(make):
    class Square(Function):
        def forward(self, x):
            self.x = x[:, None]
            return x * x

        def backward(self, grad):
            return 2 * grad * self.x[:, 0]

    x = make(3)
    y = Square()(x)
    x.data += 1
    with pytest.raises(RuntimeError, match="Square needs its input 0"):
        y.sum().backward()


def test_labels_and_indices_can_be_changed_before_backward(device):
    x = Tensor(to_device(np.ones((2, 3)), device), requires_grad=True)
    labels, rows = Tensor(to_device(np.array([0, 1]), device)), Tensor(to_device(np.array([0, 0]), device))
    loss, chosen = F.cross_entropy(x, labels, reduction="sum"), x[rows].sum()
    labels.data += 1
    rows.data += 1
    loss.backward()
    assert_allclose(x.grad, [[1 / 3 - 1, 1 / 3, 1 / 3], [1 / 3, 1 / 3 - 1, 1 / 3]])
    x.grad = None
    chosen.backward()
    assert_array_equal(x.grad, [[2, 2, 2], [0, 0, 0]])


def test_an_index_that_is_out_of_range_is_an_error(device):
    x = Tensor(to_device(np.arange(3.0), device))
    for key in (np.array([0, 5]), [0, 5], [-4], 3, (..., [0, 5]), (None, [0, 5])):
        with pytest.raises(IndexError):
            x[key]
    assert_array_equal(x[[-1, 0]].data, [2, 0])


def test_a_step_between_a_forward_and_its_backward_is_an_error():
    w = Tensor(np.ones((4, 3)), requires_grad=True)
    optimizer = SGD([w], lr=0.1)
    one, other = (w * w).sum(), (w * w).sum()
    one.backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="call backward before the optimiser's step, or run forward again"):
        other.backward()


def test_loading_a_state_between_a_forward_and_its_backward_is_an_error():
    net = nn.Linear(3, 4)
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    loss = net(x).sum()
    net.load_state_dict({name: array + 1 for name, array in net.state_dict().items()})
    with pytest.raises(RuntimeError, match="Linear of the layer Linear needs its input 1"):
        loss.backward()


@pytest.mark.parametrize(
    "view",
    [lambda x: x.reshape(-1, 3), lambda x: x.transpose(), lambda x: x[1:], lambda x: x.detach(), lambda x: x.reshape(6)[:3]],
)
def test_a_change_of_a_tensor_counts_for_its_views_and_the_reverse(make, view):
    for change_the_view in (False, True):
        x, w = make(2, 3), make(2, 3, seed=1)
        seen = view(x)
        loss = (x * w).sum() + (seen * seen).sum()
        if change_the_view:
            seen.data += 1
        else:
            x.data += 1
        with pytest.raises(RuntimeError, match="Multiply needs its input ., of shape .* for backward, but it was changed"):
            loss.backward()
    x, copied = make(2, 3), make(2, 3) + 0
    loss = (copied * copied).sum()
    x.data += 1
    loss.backward()


def test_an_array_that_backward_does_not_need_may_change(make):
    """As in PyTorch: a sum does not keep its terms, nor linear its bias; and to replace data is no change in place."""
    x, w, b = make(2, 3), make(4, 3, seed=1), make(4, seed=2)
    y = F.linear(x, w, b) + b
    loss = y.sum()
    b.data += 1
    y.data *= 2
    before = w.data
    w.data = w.data + 1
    loss.backward()
    assert_allclose(b.grad, np.full(4, 4.0))
    assert_allclose(x.grad, np.ones((2, 4)) @ to_numpy(before))


def test_detect_anomaly_finds_changes_made_through_numpy(make):
    for watched in (False, True):
        x, w = make(2, 3), make(4, 3, seed=1)
        with detect_anomaly() if watched else contextlib.nullcontext():
            loss = F.relu(F.linear(x, w)).sum()
            w.data[0, 0] = 7.0
            if not watched:
                loss.backward()
                continue
            with pytest.raises(RuntimeError, match=r"Linear kept weight, of shape \(4, 3\), for backward, but it was changed"):
                loss.backward()


def test_detect_anomaly_names_the_first_gradient_that_is_not_finite(make):
    class Broken(Function):
        def forward(self, x):
            return x * 2

        def backward(self, grad):
            return grad * np.inf

    x = make(3)
    with detect_anomaly(), np.errstate(invalid="ignore"):
        loss = (Broken()(x * 3) * 2).sum()
        with pytest.raises(RuntimeError, match="the backward of Broken returned a gradient for input 0 that is NaN or infinite"):
            loss.backward()
    (x * 3).sum().backward()


def test_a_backward_uses_the_kernels_of_its_forward(make):
    if not isinstance(make(1).data, np.ndarray):
        pytest.skip("the reference computes on NumPy arrays")
    gradients = []
    for version in ("reference", "fast"):
        x = make(1, 2, 4, 4)
        with use_kernels(version):
            loss = F.max_pool2d(x, 3, 1, 1).sum()
        loss.backward()
        gradients.append(x.grad)
    assert_array_equal(*gradients)
    with pytest.raises(ValueError, match="one of fast, reference; got 'slow'"), use_kernels("slow"):
        pass


# --- with Python's operators and NumPy -----------------------------------------------------------------------------


def test_comparisons_are_element_by_element(make, device):
    x = make(4)
    values = to_numpy(x.data)
    for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
        for other in (x, make(4, seed=1), 0.5, to_device(values[::-1].copy(), device)):
            result = compare(x, other)
            theirs = other.data if isinstance(other, Tensor) else other
            assert isinstance(result, Tensor) and result.dtype == bool and not result.requires_grad
            assert_array_equal(result.data, compare(x.data, theirs))
    assert_array_equal((to_device(values, device) == x).data, np.ones(4, bool))
    assert (x == None) is False and (x != "x") is True  # noqa: E711
    with pytest.raises(TypeError):
        x < "x"  # noqa: B015
    assert {x: 1}[x] == 1 and x in {x}


def test_a_number_of_numpy_compares_like_a_python_number():
    x = Tensor([0.1, 0.2])
    for number in (0.1, np.float64(0.1), np.float32(0.1)):
        assert_array_equal((x == number).data, [True, False])
        assert_array_equal((x > number).data, [False, True])


def test_a_comparison_with_another_device_is_an_error(device):
    """Python would answer False, because neither library knows the other's arrays."""
    if device == "numpy":
        pytest.skip("needs two devices")
    x = Tensor(to_device(np.arange(3.0), device))
    for other in (np.arange(3.0), Tensor(np.arange(3.0)), [0.0, 1.0, 2.0]):
        for compare in (operator.eq, operator.ne, operator.lt):
            with pytest.raises(
                ValueError, match="a comparison takes tensors on one device; got one on cupy:0, the other on numpy"
            ):
                compare(x, other)


def test_an_array_of_pillow_or_a_matrix_becomes_a_plain_array():
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert_array_equal(Tensor(Image.fromarray(picture)).data, picture)
    matrix = Tensor(np.array([[1, 2], [3, 4]]).view(np.matrix))
    assert_array_equal((matrix * matrix).data, [[1, 4], [9, 16]])


def test_only_a_single_number_has_a_truth_value():
    assert not Tensor(0.0) and Tensor([2]) and float(Tensor(1.5)) == 1.5 and int(Tensor([3])) == 3
    with pytest.raises(ValueError, match=r"shape \(2,\) is neither true nor false"):
        bool(Tensor([1.0, 2.0]))
    assert len(Tensor([[1.0], [2.0]])) == 2 and [row.item() for row in Tensor([1.0, 2.0])] == [1, 2]
    with pytest.raises(TypeError, match="has no length"):
        len(Tensor(1.0))


def test_numpy_functions_accept_only_tensors_without_a_gradient():
    x = Tensor([3.0, 1.0, 7.0])
    assert np.argmax(x) == 2 and list(np.asarray(x)) == [3, 1, 7]
    tracked = Tensor([3.0, 1.0], requires_grad=True)
    for function in (np.argmax, np.asarray, np.sort):
        with pytest.raises(TypeError, match="requires a gradient; give it tensor.data"):
            function(tracked)
    for function in (np.exp, np.abs):
        with pytest.raises(TypeError):
            function(x)


@pytest.mark.parametrize("data", [None, "text", [None], ["a"], 1j, [[1, 2], [3]], object()])
def test_a_tensor_holds_numbers(data):
    with pytest.raises((TypeError, ValueError)):
        Tensor(data)


@pytest.mark.parametrize("data", [Tensor([1.0]), None, "text", np.array([None])])
def test_only_numbers_may_replace_data(data):
    """A list is accepted, as in the constructor. Refused data leaves the tensor unchanged."""
    x = Tensor([1.0, 2.0])
    with pytest.raises(TypeError):
        x.data = data
    assert_array_equal(x.data, [1, 2])
    x.data = [3.0]
    assert x.shape == (1,) and x.dtype == np.float32 and x.version == 0


def test_rows_can_be_iterated_and_a_single_number_cannot():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    first, second = x
    (first * second).sum().backward()
    assert_array_equal(x.grad, [[3, 4], [1, 2]])
    with pytest.raises(TypeError, match="a single number has no length"):
        list(Tensor(1.0))
    with pytest.raises(TypeError):
        assert 1.0 in Tensor(1.0)


def test_comparisons_with_numbers_outside_the_range_of_the_dtype():
    pixels = Tensor(np.array([0, 44, 255], np.uint8))
    assert_array_equal((pixels == 300).data, [False] * 3)
    assert_array_equal((pixels < 300).data, [True] * 3)
    assert_array_equal((pixels > -1).data, [True] * 3)


def test_a_leaf_can_be_copied_and_pickled():
    x = nn.Parameter(np.arange(3.0))
    SGD([x], 0.1)
    (x * 2).sum().backward()
    x.on_gradient_ready = lambda tensor: None
    for copied in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), copy.copy(x)):
        assert type(copied) is nn.Parameter and copied.requires_grad and copied.grad_buffer is None
        assert_array_equal(copied.data, x.data)
        assert_array_equal(copied.grad, [2, 2, 2])
    assert not np.shares_memory(copy.deepcopy(x).data, x.data)
    with pytest.raises(RuntimeError, match="only leaves can be copied"):
        copy.deepcopy(x * 2)


# --- errors --------------------------------------------------------------------------------------------------------


def test_a_second_backward_is_refused(make):
    x = make(3)
    h = x * 2
    y = h.sum()
    y.backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        y.backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        (h * 3).sum().backward()


def test_backward_of_an_untracked_tensor_is_refused():
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        Tensor([1.0]).backward()


def test_backward_of_a_non_scalar_needs_a_gradient(make, device):
    x, ones = make(2, 3), to_device(np.ones((2, 3)), device)
    with pytest.raises(RuntimeError, match=r"\(2, 3\) needs a gradient"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"\(2, 3\) was given a gradient of shape \(3, 2\)"):
        (x * 2).backward(np.ones((3, 2)))
    (x * 2).backward(ones)
    (x * 2).backward(Tensor(ones))
    assert_array_equal(x.grad, np.full((2, 3), 4.0))


@pytest.mark.parametrize("grad", [1j, "text", None, object()])
def test_backward_takes_real_numbers(grad):
    x = Tensor([1.0], requires_grad=True)
    with pytest.raises(TypeError, match="holds real numbers"):
        (x * 2).backward(np.array([grad]))
    assert x.grad is None


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int64, np.bool_])
def test_backward_uses_the_dtype_of_the_output(kind):
    """Whatever the dtype of the given gradient: no gradient is wider than its tensor."""
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    y.retain_grad()
    seen = []

    class Watched(Function):
        def forward(self, x):
            return x * 1

        def backward(self, grad):
            seen.append(grad.dtype)
            return grad

    Watched()(y).backward(np.ones(2, kind))
    assert seen == [np.float32] and y.grad.dtype == x.grad.dtype == np.float32
    assert_array_equal(x.grad, [2, 2])


@pytest.mark.parametrize(
    "gradient, message",
    [
        (lambda g: (g, g), "2 gradients for 1 inputs"),
        (lambda g: [g, g], "2 gradients for 1 inputs"),
        (lambda g: g[:1], r"a gradient of shape \(1,\) for input 0 of shape \(3,\)"),
        (lambda g: None, r"a gradient of shape None for input 0 of shape \(3,\)"),
    ],
)
def test_a_backward_that_returns_wrong_shapes_is_an_error(gradient, message):
    class Wrong(Function):
        def forward(self, x):
            return x * 1

        def backward(self, grad):
            return gradient(grad)

    with pytest.raises(ValueError, match="Wrong.backward returned " + message):
        Wrong()(Tensor(np.ones(3), requires_grad=True)).sum().backward()


def test_a_function_object_can_be_called_once(make):
    from minidl.functional.activation import ReLU

    relu = ReLU()
    relu(make(3))
    with pytest.raises(RuntimeError, match="a ReLU can be called only once"):
        relu(make(3))


def test_integers_have_no_gradient():
    with pytest.raises(TypeError, match="int64"):
        Tensor(np.arange(3), requires_grad=True)
    with pytest.raises(TypeError, match="Tensor already"):
        Tensor(Tensor([1.0]))


def test_requires_grad_set_later_on_integers_is_refused():
    """An integer gradient would lose its fractions."""
    x = Tensor(np.arange(3))
    x.requires_grad = True
    with pytest.raises(TypeError, match="only floating-point tensors have gradients; input 0 of Multiply is int64"):
        (x * 0.5).sum().backward()


def test_a_misspelt_attribute_is_an_error():
    with pytest.raises(AttributeError):
        Tensor([1.0]).requires_gard = True


def test_wrong_operands_name_their_shapes(make):
    with pytest.raises(ValueError, match=r"\(2, ?3\) \(2,\)"):
        make(2, 3) + make(2)
    with pytest.raises(TypeError, match="takes a number p"):
        make(2) ** make(2)


# --- threads, views and other special cases -------------------------------------------------------------------------


def test_no_grad_works_on_a_function_called_by_several_threads(make):
    x = make(3)

    @no_grad()
    def twice():
        time.sleep(0.001)
        return x * 2

    with ThreadPoolExecutor(4) as threads:
        quiet = [threads.submit(twice) for _ in range(40)]
        assert not any(future.result().requires_grad for future in quiet)
        assert all(future.result().requires_grad for future in [threads.submit(lambda: x * 2) for _ in range(8)])


def test_a_no_grad_block_that_ends_in_another_thread_does_not_stop_the_graph_there():
    """A generator is closed by whoever drops it last."""

    def generator():
        with no_grad():
            yield

    x = Tensor([1.0], requires_grad=True)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        items = generator()
        one.submit(next, items).result()
        other.submit(items.close).result()
        assert other.submit(lambda: (x * 2).requires_grad).result()


def test_no_grad_refuses_to_decorate_a_generator():
    def generator():
        yield 1

    with pytest.raises(TypeError, match="write `with no_grad..:` inside it"):
        no_grad()(generator)


def test_a_step_before_backward_is_noticed_through_a_view():
    for view in (lambda w: w.transpose(), lambda w: w.reshape(4, 3).transpose(), lambda w: w[:].transpose()):
        w = Tensor(np.ones((4, 3)), requires_grad=True)
        w.data += 1  # before the optimiser packs it
        optimizer, x = SGD([w], lr=0.1), Tensor(np.ones((2, 3)), requires_grad=True)
        w.grad = np.ones((4, 3))
        loss = (x @ view(w)).sum()
        optimizer.step()
        with pytest.raises(RuntimeError, match="MatMul needs its input 1"):
            loss.backward()
    x3 = Tensor(np.ones((2, 5, 3)), requires_grad=True)
    loss = F.linear(x3, w).sum()
    x3.data += 1
    with pytest.raises(RuntimeError, match="Linear needs its input 0"):
        loss.backward()
    images = Tensor(np.ones((2, 5, 3)))  # do not need a gradient themselves
    loss = F.linear(images, w).sum()
    images.data += 1
    with pytest.raises(RuntimeError, match="Linear needs its input 0"):
        loss.backward()


def test_an_optimiser_made_between_a_forward_and_its_backward_changes_nothing():
    w = Tensor(np.ones((4, 3)), requires_grad=True)
    w.data += 1
    loss = (w * w).sum()
    SGD([w], lr=0.1)
    loss.backward()
    assert_array_equal(w.grad, np.full((4, 3), 4.0))


def test_a_change_of_running_statistics_that_are_tensors_is_noticed():
    x, mean, w = Tensor(np.arange(6.0).reshape(3, 2)), Tensor(np.zeros(2)), Tensor(np.ones(2), requires_grad=True)
    loss = (w * mean).sum()
    F.batch_norm(x, mean, Tensor(np.ones(2)), training=True)
    with pytest.raises(RuntimeError, match="Multiply needs its input 1"):
        loss.backward()


def test_a_change_of_an_array_kept_in_a_tuple_is_noticed(make):
    class Product(Function):
        def forward(self, a, b):
            self.both = (a, b)
            return a * b

        def backward(self, grad):
            return grad * self.both[1], grad * self.both[0]

    a, b = make(3), make(3, seed=1)
    loss = Product()(a, b).sum()
    b.data += 1
    with pytest.raises(RuntimeError, match="Product needs its input 1"):
        loss.backward()
    with detect_anomaly():
        loss = Product()(a, b).sum()
        a.data[0] = 7
        with pytest.raises(RuntimeError, match="Product kept both"):
            loss.backward()


def test_a_number_can_be_formatted():
    loss = Tensor(1.23456, requires_grad=True)
    assert f"{loss:.2f}" == "1.23" and f"{loss}" == repr(loss)


def test_the_gradient_of_a_single_number_is_an_array():
    x = Tensor(np.float32(3), requires_grad=True)
    (x * x).backward()
    assert isinstance(x.grad, np.ndarray) and x.grad == 6
