"""Activations in integers with one scale a token, found while the graph runs.

    s = max(max |x|, 2^-126) / (2^(bits - 1) - 1),    x_q = round(x / s),    max over the last axis

x_q lies within the range by itself, so nothing has to be clipped. It is stored as u8 around the
zero point 2^(bits - 1), because ONNX Runtime's kernel of two signed operands is ten times slower
than that of u8 and s8; with 4 bits, x_q is in [1, 15] and no 16-bit sum of any processor saturates.

    Abs -> ReduceMax -> Max -> Div = s,    Div -> QuantizeLinear(1, 2^(bits - 1)) = x_q + zero point

A token's integers depend on nothing but the token.

Cost: four passes over the activation; shared by the layers that read it.
Source: Ashkboos et al. 2024, arXiv:2404.00456, section 4, stage 2c (a scale a token, symmetric);
the operators and the unsigned form are our choice, read from ONNX Runtime's optimised graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qcomp.passes.graph.rewriting import Editor

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ACTIVATION_BITS", "MARK", "TokenScales", "largest_sum"]

ACTIVATION_BITS = (8, 4)

MARK = "_token_scale"
"""How the name of such a scale ends."""

_LEAST = np.float32(np.finfo(np.float32).tiny)


def largest_sum(inputs: int, bits: int, weight_bits: int = 8) -> int:
    """No partial sum of a product over so many inputs leaves [-n, n], zero points apart or not.

    Args:
        inputs: K, terms of a sum.
        bits: Of the activation; u8 levels reach 2^bits - 1.
        weight_bits: Of the weight; s8 levels reach -128.
    """
    return inputs * ((1 << bits) - 1) * (1 << (weight_bits - 1))


class TokenScales:
    """Quantizes activations of one graph, each once.

    Args:
        editor: Of the graph.
        bits: 8 or 4.
    """

    def __init__(self, editor: Editor, bits: int) -> None:
        self._editor = editor
        self._half = 1 << (bits - 1)
        self._done: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._fixed: dict[str, ir.Value] = {}

    def add(self, x: ir.Value, before: ir.Node) -> tuple[ir.Value, ir.Value]:
        """Quantize an activation.

        Args:
            x: Float tensor [..., K].
            before: The operators come before this node, unless they are there already.

        Returns:
            x / s [..., K], rounded by a pair of QuantizeLinear and DequantizeLinear, and the scales
            float32[..., 1].
        """
        if x in self._done:
            return self._done[x]
        name = x.name or "x"

        def make(kind: str, inputs: list[ir.Value], wish: str, **attributes: int) -> ir.Value:
            node = self._editor.node(
                kind,
                inputs,
                attributes,
                name=f"{name}_token_{kind}",
                outputs=[f"{name}{wish}"],
                before=before,
            )
            return node.outputs[0]

        size = make("Abs", [x], "_size")
        reach = make("ReduceMax", [size, self._last()], "_reach", keepdims=1)
        reach = make("Max", [reach, self._constant("least", _LEAST)], "_reach_or_least")
        top = self._constant("top", np.float32(self._half - 1))
        scale = make("Div", [reach, top], MARK)
        zero = self._constant("zero", np.uint8(self._half))
        steps = make("Div", [x, scale], "_steps")
        one = self._constant("one", np.float32(1))
        levels = make("QuantizeLinear", [steps, one, zero], "_quantized")
        steps = make("DequantizeLinear", [levels, one, zero], "_dequantized")
        self._done[x] = (steps, scale)
        return self._done[x]

    def _last(self) -> ir.Value:
        return self._constant("axis", np.array([-1]))

    def _constant(self, what: str, number: np.generic | np.ndarray) -> ir.Value:
        if what not in self._fixed:
            self._fixed[what] = self._editor.initializer(f"token_{what}", np.asarray(number))
        return self._fixed[what]
