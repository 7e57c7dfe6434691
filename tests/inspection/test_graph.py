"""The drawn graph: its nodes, edges and numbers, read back from the SVG."""

import itertools
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import minidl
import minidl.functional as F
from minidl import Function, Tensor, nn, no_grad
from minidl.errors import UserError

SVG = "{http://www.w3.org/2000/svg}"


def read(drawing):
    """({lines of text of each node}, [(from, to) titles of each edge]) of a drawing."""
    root = ET.fromstring(drawing.draw(format="svg"))
    nodes, edges = {}, []
    for group in root.iter(f"{SVG}g"):
        texts = tuple("".join(text.itertext()) for text in group.findall(f"{SVG}text"))
        title = group.findtext(f"{SVG}title")
        if group.get("class") == "node":
            nodes[title] = texts
        elif group.get("class") == "edge":
            edges.append((title, texts))
    return list(nodes.values()), [
        (nodes[source][0], nodes[target][0], *texts) for source, _, target, texts in ((*t.partition("->"), x) for t, x in edges)
    ]


@pytest.fixture(autouse=True, scope="module")
def _graphviz():
    pytest.importorskip("pygraphviz")


def test_an_expression_with_its_values_and_gradients():
    a, b = Tensor(2.0, requires_grad=True), Tensor(-3.0, requires_grad=True)
    L = (a * b + a**2) * 2
    nodes, edges = read(minidl.graph(L, a=a, b=b, L=L))
    assert sorted(nodes) == sorted(
        [
            ("a", "2", "grad 2"),
            ("b", "-3", "grad 4"),
            ("Multiply", "-6", "grad 2"),
            ("Power", "4", "grad 2"),
            ("Add", "-2", "grad 2"),
            ("constant", "2"),
            ("L Multiply", "-4", "grad 1"),
        ]
    )
    assert sorted(edges) == sorted(
        [
            ("a", "Multiply", "a"),
            ("b", "Multiply", "b"),
            ("a", "Power"),
            ("Multiply", "Add", "a"),
            ("Power", "Add", "b"),
            ("Add", "L Multiply", "a"),
            ("constant", "L Multiply", "b"),
        ]
    )


def test_drawing_does_not_free_the_graph():
    a = Tensor([2.0, 3.0], requires_grad=True)
    L = (a * a).sum()
    minidl.graph(L)
    assert a.grad is None
    L.backward()
    np.testing.assert_array_equal(a.grad, [4, 6])
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        minidl.graph(L)


def test_the_same_graph_is_the_same_drawing():
    def drawn():
        a = Tensor(2.0, requires_grad=True)
        return minidl.graph(a * a + a).draw(format="svg")

    before, elsewhere = drawn(), [Tensor(1.0) for _ in range(100)]
    assert drawn() == before and elsewhere


def test_a_mean_that_is_only_rounding_is_zero():
    values = np.tile(np.array([0.1, -0.1], np.float32), 4)
    values[0] += np.float32(1e-8)
    assert 0 < abs(values.mean()) < 1e-8
    nodes, _ = read(minidl.graph(Tensor(values)))
    assert nodes == [("constant", "8", "mean 0, std 0.1")]


def test_a_tensor_used_twice_by_one_function_has_two_edges():
    a = Tensor(3.0, requires_grad=True)
    nodes, edges = read(minidl.graph(a * a))
    assert nodes == [("leaf", "3", "grad 6"), ("Multiply", "9", "grad 1")] and len(edges) == 2


class Net(nn.Module):
    def __init__(self):
        self.body = nn.Sequential({"conv": nn.Conv2d(1, 2, 3), "relu": nn.ReLU()})
        self.fc = nn.Linear(8, 3, bias=False)

    def forward(self, x):
        return self.fc(F.flatten(self.body(x)))


def test_each_layer_of_a_network_is_one_node():
    net = Net()
    x = Tensor(np.random.default_rng(0).standard_normal((1, 1, 4, 4)))
    loss = F.cross_entropy(net.to(dtype=np.float64)(x), [1])
    nodes, edges = read(minidl.graph(loss, net, x=x))
    assert [node[0] for node in nodes] == [
        "x",
        "body.conv Conv2d",
        "body.relu ReLU",
        "Reshape",
        "fc Linear",
        "CrossEntropy",
        "Mean",
    ]
    assert [edge[:2] for edge in edges] == [(a[0], b[0]) for a, b in itertools.pairwise(nodes)]
    conv, fc = nodes[1], nodes[4]
    assert conv[1] == "1 x 2 x 2 x 2" and "weight" in conv and "bias" in conv and "2 x 1 x 3 x 3" in conv
    assert "weight" in fc and "bias" not in fc and "3 x 8" in fc

    loss.backward()
    for node, parameter in ((conv, net.body.conv.weight), (conv, net.body.conv.bias), (fc, net.fc.weight)):
        place = node.index("bias" if parameter.ndim == 1 else "weight")
        value, grad = parameter.data, parameter.grad
        if value.size > 6:
            assert node[place + 2] == f"mean {value.mean():.3g}, std {value.std():.3g}"
            mean = 0 if parameter is net.fc.weight else grad.mean()  # those of a row of logits sum to zero
            assert node[place + 3] == f"grad mean {mean:.3g}, std {grad.std():.3g}"
        else:
            assert node[place + 3] == f"grad [{grad[0]:.4g}, {grad[1]:.4g}]"


def test_without_the_network_a_layer_has_the_name_of_its_class():
    nodes, _ = read(minidl.graph(Net()(Tensor(np.zeros((1, 1, 4, 4), np.float32)))))
    assert [node[0] for node in nodes] == ["constant", "Conv2d", "ReLU", "Reshape", "Linear"]


def test_a_parameter_that_is_also_used_elsewhere_is_a_node():
    fc = nn.Linear(2, 1, bias=False)
    _, edges = read(minidl.graph(fc(Tensor(np.ones((1, 2), np.float32))).sum() + (fc.weight * fc.weight).sum(), fc, w=fc.weight))
    assert sorted(edge[:2] for edge in edges).count(("weight", "Multiply")) == 2 and ("weight", "Linear") in [
        e[:2] for e in edges
    ]


def test_a_layer_that_returns_its_input_does_not_hide_a_function():
    nodes, _ = read(minidl.graph(nn.Dropout().eval()(F.relu(Tensor([1.0], requires_grad=True) * 1))))
    assert nodes[-1][0] == "ReLU"


def test_every_call_of_a_shared_layer_is_a_node():
    layer = nn.Linear(2, 2)
    nodes, _ = read(minidl.graph(layer(layer(Tensor(np.ones((1, 2), np.float32))))))
    assert [node[0] for node in nodes] == ["constant", "Linear", "Linear"]


def test_a_non_scalar_has_no_gradients_and_a_constant_no_edges():
    a = Tensor([1.0, 2.0], requires_grad=True)
    nodes, _ = read(minidl.graph(a * 2.0))
    assert ("leaf", "2", "[1, 2]") in nodes
    with no_grad():
        assert read(minidl.graph(a * 2.0)) == ([("constant", "2", "[2, 4]")], [])


def test_names_with_html_characters_are_escaped():
    class Less(Function):
        def forward(self, x):
            return x

        def backward(self, grad):
            return grad

    Less.__name__ = "A<B>&C"
    nodes, _ = read(minidl.graph(Less()(Tensor(1.0, requires_grad=True))))
    assert nodes[1][0] == "A<B>&C"


def test_a_graph_of_too_many_nodes_is_refused():
    x = Tensor(1.0, requires_grad=True)
    for _ in range(500):
        x = -x
    with pytest.raises(ValueError, match="a graph of 501 nodes is too large to read; graph draws up to 400"):
        minidl.graph(x)


def test_without_pygraphviz_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(UserError, match="needs pygraphviz"):
        minidl.graph(Tensor(1.0, requires_grad=True) * 2)


@pytest.mark.parametrize("arguments, names", [([np.ones(3)], "ndarray and a NoneType"), ([Tensor(1.0), 5], "Tensor and a int")])
def test_wrong_arguments_are_refused(arguments, names):
    with pytest.raises(TypeError, match=f"graph takes a Tensor, and a Module as model; got a {names}"):
        minidl.graph(*arguments)
