"""Graphs that Graphviz lays out: computations, and the rooms of the package."""

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

import minidl
import minidl.functional as F
from minidl import Tensor, nn, random

from .sheet import figure


@figure("graph-expression")
def graph_expression():
    a, b = Tensor(2.0, requires_grad=True), Tensor(-3.0, requires_grad=True)
    L = (a * b + a**2) * 2
    return minidl.graph(L, a=a, b=b, L=L)


@figure("graph-network")
def graph_network():
    random.manual_seed(0)
    layers = {"conv": nn.Conv2d(3, 8, 3, padding=1), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2), "flatten": nn.Flatten()}
    net = nn.Sequential({**layers, "fc": nn.Linear(2048, 10)})
    images = np.random.default_rng(0).random((4, 3, 32, 32), np.float32)
    return minidl.graph(F.cross_entropy(net(Tensor(images)), np.array([3, 1, 4, 1])), net)


def imported() -> dict[str, set[str]]:
    """The rooms of minidl, and alexnet, each with those that its modules import."""
    from tests.basics.test_imports import FILES, RANK, ROOT, imports, room

    rooms: dict[str, set[str]] = {name: set() for name in sorted({*RANK, "data", "alexnet"})}
    for file in [*FILES, *(ROOT / "alexnet").rglob("*.py")]:
        own = room(file) if file in FILES else "alexnet"
        if own in rooms:  # and is not minidl/__init__.py
            rooms[own] |= {name.split(".")[1] for name in imports(file) if name.startswith("minidl.")} & rooms.keys() - {own}
    return rooms


def direct(rooms: dict[str, set[str]]) -> dict[str, set[str]]:
    """The imports without those that others already lead to (the transitive reduction)."""

    @cache
    def reached(name: str) -> set[str]:
        return rooms[name].union(*map(reached, rooms[name]))

    return {name: targets - set().union(*map(reached, targets)) for name, targets in rooms.items()}


@figure("rooms")
def rooms() -> Any:
    """The direct imports between rooms, from the top down. Rooms beside each other have the same rank."""
    import pygraphviz

    from tests.basics.test_imports import ORDER

    drawing = pygraphviz.AGraph(directed=True, strict=False, ranksep="0.25", nodesep="0.18")
    letters = {"fontname": "Helvetica,Arial,sans-serif", "fontsize": "11"}
    drawing.node_attr.update(shape="box", style="filled", fillcolor="#e3f0ff", color="#888888", height="0.3", **letters)
    drawing.edge_attr.update(color="#666666", arrowsize="0.6")
    ranks = [*map(sorted, ORDER), ["alexnet"]]
    for i, names in enumerate(ranks):
        drawing.add_nodes_from(names)
        drawing.add_subgraph(names, f"rank{i}", rank="same")
    for lower, upper in pairwise(ranks):
        drawing.add_edge(upper[0], lower[0], "rank", style="invis")
    for name, targets in direct(imported()).items():
        for target in sorted(targets):
            drawing.add_edge(name, target)
    drawing.layout(prog="dot")
    return drawing
