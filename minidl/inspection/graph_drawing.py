"""A drawing of the computation graph, along which backpropagation computes gradients."""

import html
from typing import Any

import numpy as np

from ..autodiff import Tensor, ancestors, walk
from ..backend import Array, get_array_module, to_numpy
from ..errors import UserError

MOST_NODES = 400  # a larger drawing cannot be read
SHOWN_VALUES = 6  # the most elements of an array that is shown whole; of others the mean and standard deviation are shown
LEAF, CONSTANT, FUNCTION, LAYER = "#fff3c4", "#eeeeee", "#e3f0ff", "#dcf3df"


def graph(tensor: Tensor, model: Any = None, **named: Tensor) -> Any:
    """The computation graph of a tensor, from its leaves at the top to the tensor itself, as a pygraphviz.AGraph with layout.

    A notebook displays it; graph(loss).draw("loss.svg") writes a file (also .png, .pdf). A node is a tensor with the function
    that computed it: its shape, its value, and, if `tensor` is a single number, its gradient d tensor / d node. The gradients
    are computed for the drawing only: no tensor's grad changes, and `tensor.backward()` can follow. Draw before backward,
    which frees the graph.

    A function that computed a layer's output is drawn as the layer, with the layer's own parameters inside.
    model: the network from which layers and parameters take their names. named: names for other tensors, as in
    graph(loss, x=x).

    Raises RuntimeError after backward, ValueError for a graph too large to read, UserError without pygraphviz.
    """
    if not isinstance(tensor, Tensor) or not (model is None or hasattr(model, "named_modules")):
        raise TypeError(
            f"graph takes a Tensor, and a Module as model; got a {type(tensor).__name__} and a {type(model).__name__}"
        )
    try:
        import pygraphviz
    except ImportError:
        raise UserError("minidl.graph needs pygraphviz, which includes Graphviz: pip install 'pygraphviz>=2'") from None
    order = ancestors(tensor)
    elsewhere = {source for t in order for _, source in _sources(t) if source not in _own_parameters(t)}
    folded = {parameter for t in order for parameter in _own_parameters(t)} - elsewhere
    shown = [t for t in order if t not in folded]
    if len(shown) > MOST_NODES:
        raise ValueError(f"a graph of {len(shown):,} nodes is too large to read; graph draws up to {MOST_NODES} nodes")
    gradients: dict[Tensor, Array] = {}
    if tensor.requires_grad and tensor.data.size == 1:
        gradients = dict(walk(tensor, get_array_module(tensor.data).ones_like(tensor.data)))
    names: dict[Any, str] = {t: name for name, t in named.items()}
    if model is not None:
        names |= {part: name for name, part in [*model.named_modules(), *model.named_parameters()]}

    drawing = pygraphviz.AGraph(directed=True, strict=False, bgcolor="transparent")
    drawing.node_attr.update(shape="plain", fontname="Helvetica,Arial,sans-serif", fontsize="11")
    drawing.edge_attr.update(fontname="Helvetica,Arial,sans-serif", fontsize="9", color="#666666", fontcolor="#666666")
    number = {t: i for i, t in enumerate(shown)}  # and not id(t), so that the same graph is the same drawing
    for t in shown:
        drawing.add_node(number[t], label=_label(t, gradients, names))
    for t in shown:
        sources = _sources(t)
        for role, source in sources:
            if source not in folded:
                label = role if len(sources) > 1 and t.creator.module is None else ""
                drawing.add_edge(number[source], number[t], key=role, label=label)
    drawing.layout(prog="dot")
    return drawing


def _sources(t: Tensor) -> list[tuple[str, Tensor]]:
    """The inputs that t was computed from, each with its name in forward, such as x, weight, bias."""
    if t.creator is None:
        return []
    code = type(t.creator).forward.__code__
    roles = code.co_varnames[1 : code.co_argcount]
    named = enumerate(t.creator.inputs)
    return [(roles[i] if i < len(roles) else str(i), source) for i, source in named if source is not None]


def _own_parameters(t: Tensor) -> dict[Tensor, str]:
    """If t is the output of a layer, the layer's own parameters among its inputs, with their names in forward."""
    if t.creator is None or t.creator.module is None:
        return {}
    own = {value for value in vars(t.creator.module).values() if isinstance(value, Tensor)}
    return {source: role for role, source in _sources(t) if source in own}


def _label(t: Tensor, gradients: dict[Tensor, Array], names: dict[Any, str]) -> str:
    """The label of a node: name, shape, value and gradient, and the same of a layer's parameters."""
    if t.creator is None:
        kind = "leaf" if type(t) is Tensor else type(t).__name__
        color, kind = (LEAF, kind) if t.requires_grad else (CONSTANT, "constant")
        title = names.get(t, kind)
    else:
        module = t.creator.module
        color = FUNCTION if module is None else LAYER
        title = " ".join([*[names[part] for part in (module, t) if names.get(part)], type(module or t.creator).__name__])
    rows = [f"<b>{html.escape(title)}</b>", *_values(t, gradients)]
    for parameter, role in _own_parameters(t).items():
        rows += [html.escape(role), *_values(parameter, gradients)]
    cells = "".join(f'<tr><td align="center">{row}</td></tr>' for row in rows)
    return f'<<table border="1" color="#888888" cellborder="0" cellspacing="0" cellpadding="3" bgcolor="{color}">{cells}</table>>'


def _values(t: Tensor, gradients: dict[Tensor, Array]) -> list[str]:
    shape = " x ".join(map(str, t.shape))
    rows = [_colored(shape, "#666666")] if shape else []
    rows.append(_colored(_array(t.data), "#1a4f8b"))
    if t in gradients:
        rows.append(_colored("grad " + _array(gradients[t]), "#a8321c"))
    return rows


def _array(array: Array) -> str:
    values = to_numpy(array)
    if values.size > SHOWN_VALUES:
        mean, std = values.mean(), values.std()
        return f"mean {0 if abs(mean) < np.spacing(std) else mean:.3g}, std {std:.3g}"  # 0: nothing but rounding
    return np.array2string(values, separator=", ", formatter={"float_kind": lambda v: f"{v:.4g}"})


def _colored(text: str, color: str) -> str:
    return f'<font color="{color}">' + html.escape(text).replace("\n", "<br/>") + "</font>"
