"""Tools to inspect a network: a gradient check, a table of its layers, and a drawing of the computation graph.

They take any network or function, and import nothing from nn.
"""

from .gradient_check import GradientError, gradcheck
from .graph_drawing import graph
from .layer_table import Row, format_summary, summary

__all__ = ["GradientError", "Row", "format_summary", "gradcheck", "graph", "summary"]
