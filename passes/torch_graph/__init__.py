"""Operators of an ONNX graph run in PyTorch, so that gradients reach its inputs and weights."""

from qcomp.passes.torch_graph.run import (
    as_torch,
    has_torch,
    import_torch,
    run_nodes,
    untranslated,
)
from qcomp.passes.torch_graph.table import OPERATORS

__all__ = ["OPERATORS", "as_torch", "has_torch", "import_torch", "run_nodes", "untranslated"]
