"""Tools to look into a network: is its gradient right, what is it made of, what does backpropagation walk along?

They take any network or function, and import nothing from nn.
"""

from .gradient_check import GradientError, gradcheck
from .graph_drawing import graph
from .layer_table import Row, format_summary, summary

__all__ = ["GradientError", "Row", "format_summary", "gradcheck", "graph", "summary"]
