"""Tools to look into a network: is its gradient right, what is it made of, what does backpropagation walk along?

They take networks and functions as they are, and know nothing of the layers to their right.
"""

from .gradient_check import GradientError, gradcheck
from .graph_drawing import graph
from .layer_table import Row, format_summary, summary

__all__ = ["GradientError", "Row", "format_summary", "gradcheck", "graph", "summary"]
