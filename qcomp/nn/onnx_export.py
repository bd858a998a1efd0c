"""How the operator ``qcomp::circuit`` is written into an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from qcomp.ir.program import CIRCUIT_OP, DOMAIN
from qcomp.nn.op import SEPARATOR, circuit_op

__all__ = ["translation_table"]


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the ``custom_translation_table`` for ``torch.onnx.export(..., dynamo=True)``.

    Each call of the operator becomes one ``ai.qcomp::Circuit`` node, its circuit inside.
    """
    import onnx
    import onnx_ir
    import onnxscript

    schema = onnx.defs.OpSchema
    variadic = schema.FormalParameterOption.Variadic
    floats = ["tensor(float)", "tensor(double)"]
    kinds = {
        "circuit": schema.AttrType.STRING,
        "kind": schema.AttrType.STRING,
        "observables": schema.AttrType.STRINGS,
        "shots": schema.AttrType.INT,
        "qasm": schema.AttrType.STRING,
    }

    def operator(result: str) -> Any:  # noqa: ANN401  onnxscript's own
        definition = schema(
            CIRCUIT_OP,
            DOMAIN,
            1,
            inputs=[schema.FormalParameter("inputs", "T", param_option=variadic, min_arity=1)],
            outputs=[schema.FormalParameter("output", result)],
            type_constraints=[("T", floats, "the dtype of parameters and result")],
            attributes=[schema.Attribute(n, kind, required=False) for n, kind in kinds.items()],
        )
        return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), CIRCUIT_OP, definition)

    node, sampling = operator("T"), operator("tensor(uint8)")

    def translate(
        inputs: Sequence[Any],
        circuit: str,
        qasm: str,
        kind: str,
        observables: str,
        shots: int,
        seed: int,
    ) -> Any:  # noqa: ANN401  onnxscript's own values
        attributes: dict[str, Any] = {"circuit": circuit, "kind": kind, "shots": shots}
        if observables:
            attributes["observables"] = observables.split(SEPARATOR)
        if kind == "samples":
            bits = sampling(*inputs, qasm=qasm, **attributes)
            bits.type = onnx_ir.TensorType(onnx_ir.DataType.UINT8)
            return onnxscript.opset21.CastLike(bits, inputs[0])
        return node(*inputs, qasm=qasm, **attributes)

    assert isinstance(circuit_op, torch.library.CustomOpDef)
    return {torch.ops.qcomp.circuit.default: translate}
