"""Computation graphs, which Graphviz lays out."""

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
