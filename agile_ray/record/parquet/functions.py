"""Arrow's functions of columns. pyarrow makes most of them when it is imported, so a type checker does not see them."""

from importlib import import_module

compute = import_module("pyarrow.compute")
"""The module of these functions."""
