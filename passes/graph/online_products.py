"""How constants turn, and activations while the graph runs.

    y = x R,      y = R^T x      or, along n = a b channels, x viewed as X[a, b]:  Y = A^T X B

The last is the product with A (x) B: a + b multiplications a channel in place of a b. Products
stay in float: the rules for the passes behind say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from qcomp.node_rules import NodeRules, Override
from qcomp.passes.graph.hadamard import Orthogonal
from qcomp.passes.graph.rewriting import Editor, node_label
from qcomp.quantization import rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passmanager import Context

__all__ = ["HADAMARD", "OnlineProducts", "Step"]

HADAMARD = "_hadamard"
"""In the names of the operators that turn while the graph runs."""

_REASON = "it turns an activation while the graph runs: products with small matrices stay in float"

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of a constant of the graph.

    Attributes:
        rotation: R.
        axis: Along which its vectors turn.
        part: ``whole`` vectors, or the vectors [k, n] or [n, k] that an axis of k n channels
            consists of: ``inner`` for neighbours (heads side by side), ``outer`` for every k-th.
    """

    rotation: Orthogonal
    axis: int
    part: Literal["whole", "inner", "outer"] = "whole"

    def turned(self, W: Float64) -> Float64:
        """The constant behind this step."""
        if self.part == "whole":
            return self.rotation.along(W, self.axis)
        moved, n = np.moveaxis(W, self.axis, -1), self.rotation.size
        if self.part == "inner":
            made = self.rotation.rows(moved.reshape(*moved.shape[:-1], -1, n))
        else:
            made = self.rotation.along(moved.reshape(*moved.shape[:-1], n, -1), -2)
        return np.moveaxis(made.reshape(moved.shape), -1, self.axis)


class OnlineProducts:
    """Writes products with orthogonal matrices into a graph.

    Args:
        editor: Of the graph.
        context: Takes the rules that keep them in float.
        steps: Takes how their constants come from the identity.
    """

    def __init__(
        self, editor: Editor, context: Context, steps: dict[ir.Value, tuple[Step, ...]]
    ) -> None:
        self._editor, self._context, self._steps = editor, context, steps

    def along(self, x: ir.Value, axis: int, R: Orthogonal, before: ir.Node) -> ir.Value:
        """X R for the last axis, R^T X for the one before."""
        name = f"{x.name}{HADAMARD}"
        side = self._matrix(name, R, right=axis == -1)
        inputs = [x, side] if axis == -1 else [side, x]
        node = self._editor.node("MatMul", inputs, name=f"{name}_MatMul", before=before)
        return self._keep_in_float([node], node.outputs[0], x)

    def by_factors(self, x: ir.Value, A: Orthogonal, B: Orthogonal, before: ir.Node) -> ir.Value:
        """X (A (x) B) along the last axis."""
        name = f"{x.name}{HADAMARD}"
        made: list[ir.Node] = []

        def add(op: str, inputs: list[ir.Value]) -> ir.Value:
            made.append(self._editor.node(op, inputs, name=f"{name}_{op}", before=before))
            return made[-1].outputs[0]

        shape = add("Shape", [x])
        parts = self._editor.initializer(f"{name}_parts", np.array([-1, A.size, B.size]))
        right = self._matrix(name, B, right=True)
        right = add("MatMul", [add("Reshape", [x, parts]), right])
        both = add("MatMul", [self._matrix(name, A, right=False), right])
        return self._keep_in_float(made, add("Reshape", [both, shape]), x)

    def _matrix(self, name: str, R: Orthogonal, *, right: bool) -> ir.Value:
        step = Step(R, 1 if right else 0)
        entries = np.ascontiguousarray(step.turned(np.eye(R.size)), np.float32)
        value = self._editor.initializer(f"{name}_{'right' if right else 'left'}", entries)
        self._steps[value] = (step,)
        return value

    def _keep_in_float(self, nodes: list[ir.Node], y: ir.Value, like: ir.Value) -> ir.Value:
        y.type, y.shape = like.type, like.shape
        ours = tuple(
            Override(escape(node_label(node)), scheme="float", reason=_REASON) for node in nodes
        )
        self._context.put(rules_of(self._context).joined(NodeRules(override=ours)))
        return y
