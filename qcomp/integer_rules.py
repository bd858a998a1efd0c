"""Which integers a machine takes, and where: the ``[integers]`` table of a graph target's file.

The quantizing passes read these rules and know no machine by its name. Left out, they are those of
ONNX Runtime's CPU provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcomp.passmanager import Context

__all__ = ["CPU_PROVIDER", "IntegerRules", "integer_rules_of", "read_integers"]

CPU_PROVIDER = "CPUExecutionProvider"

_CHOICES = {
    "activation": ("u8", "s8", "u16", "s16", "e4m3"),
    "weight": ("s8", "u8", "e4m3"),
    "bias": ("s32", "s8", "float"),
    "clamps": ("kept", "folded"),
}


@dataclass(frozen=True, slots=True)
class IntegerRules:
    """What the integers of a machine look like, and which operators take them.

    Attributes:
        provider: ONNX Runtime's execution provider that runs the graph.
        activation: Type of activations: ``u8``, ``s8``, ``u16``, ``s16``, or the 8-bit float
            ``e4m3``, which ``quantize-fp8`` writes; one scale a tensor.
        symmetric: Whether the zero point of activations is the middle of the type (0 if signed).
        weight: Type of weights with one scale a tensor, ``s8`` or ``u8``; the zero point is 0 or
            128. Those with one scale a channel are ``s8``. ``e4m3``: 4 bits that stand for 8-bit
            floats.
        per_channel: Operators whose weights have one scale an output channel.
        power_of_two: Whether all scales are powers of two; only where ``symmetric``.
        bias: ``s32`` in steps of the input's scale times the weight's, ``s8`` with a scale of its
            own, or ``float``.
        float_bias: Operators whose bias stays float all the same.
        weighted: Operators whose input 1 is an integer weight.
        between: Operators without weights that are taken where all that they read is integers.
        moves: Operators that only move integers: the result has the scale of the input.
        products: Whether products of two activations are taken.
        stored: Operators whose results are always integers. A result of the others is, where an
            integer operator reads it.
        stored_if_read: Operators whose results are integers for all readers where one of them is
            an integer operator.
        clamps: ``folded``: a Relu or Clip behind which the integers hold no other values is left
            out; ``kept``: it stays.
        fixed: Operator -> (scale, zero point) of its result, where the machine sets them.
        sources: Where this is documented.
    """

    provider: str = CPU_PROVIDER
    activation: str = "u8"
    symmetric: bool = False
    weight: str = "s8"
    per_channel: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    power_of_two: bool = False
    bias: str = "s32"
    float_bias: tuple[str, ...] = ("Conv",)
    weighted: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    between: tuple[str, ...] = (
        "Add",
        "AveragePool",
        "Concat",
        "GlobalAveragePool",
        "LeakyRelu",
        "Mul",
        "Sigmoid",
    )
    moves: tuple[str, ...] = (
        "DepthToSpace",
        "Flatten",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
    products: bool = False
    stored: tuple[str, ...] = (
        "Add",
        "AveragePool",
        "Concat",
        "Conv",
        "GlobalAveragePool",
        "LeakyRelu",
        "Mul",
        "Sigmoid",
    )
    stored_if_read: tuple[str, ...] = ("Gemm", "MatMul")
    clamps: str = "kept"
    fixed: Mapping[str, tuple[float, int]] = field(default_factory=lambda: MappingProxyType({}))
    sources: tuple[str, ...] = ()

    @property
    def is_cpu(self) -> bool:
        """Whether ONNX Runtime's CPU provider runs the graph, whose kernels can be looked up."""
        return self.provider == CPU_PROVIDER

    @property
    def takes(self) -> tuple[str, ...]:
        """All operators that compute with integers or move them."""
        return tuple(sorted({*self.weighted, *self.between, *self.moves}))

    def bias_of(self, op_type: str) -> str:
        """Type of the bias of an operator."""
        return "float" if op_type in self.float_bias else self.bias


def integer_rules_of(context: Context) -> IntegerRules:
    """Return the rules of the machine that is compiled for; those of CPUs where there is none."""
    target = context.target
    return IntegerRules() if target is None or target.integers is None else target.integers


def read_integers(data: object) -> tuple[IntegerRules, list[str]]:
    """Return the rules that an ``[integers]`` table holds, and what is wrong with it.

    Args:
        data: The table as plain data; what it leaves out is as CPUs have it.
    """
    if not isinstance(data, Mapping):
        return IntegerRules(), ["'integers' must be an object"]
    faults: list[str] = []
    found: dict[str, object] = {}
    plain = IntegerRules()
    known = [item.name for item in fields(IntegerRules)]
    for key, value in data.items():
        if key not in known:
            from qcomp.errors import suggest

            faults.append(f"'integers' has no entry '{key}'; {suggest(str(key), known)}")
            continue
        usual = getattr(plain, key)
        if key == "fixed":
            pairs = value.items() if isinstance(value, Mapping) else ((key, None),)
            table = {str(name): _fixed(pair) for name, pair in pairs}
            if None in table.values():
                faults.append("'integers.fixed' must map operators to [scale, zero point]")
            else:
                found[key] = MappingProxyType(table)
        elif isinstance(usual, bool):
            if not isinstance(value, bool):
                faults.append(f"'integers.{key}' must be true or false")
            found[key] = value
        elif isinstance(usual, tuple):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                faults.append(f"'integers.{key}' must be a list of texts")
            else:
                found[key] = tuple(value)
        elif not isinstance(value, str) or value not in _CHOICES.get(key, (value,)):
            wanted = ", ".join(_CHOICES.get(key, ("text",)))
            faults.append(f"'integers.{key}' is {value!r}, it must be one of: {wanted}")
        else:
            found[key] = value
    if found.get("power_of_two") and not found.get("symmetric"):
        faults.append("'integers.power_of_two' needs 'symmetric': zero points would not be exact")
    return (plain if faults else IntegerRules(**found)), faults  # type: ignore[arg-type]


def _fixed(pair: object) -> tuple[float, int] | None:
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    scale, zero = pair
    numbers = isinstance(scale, int | float) and isinstance(zero, int)
    return (float(scale), int(zero)) if numbers and scale > 0 else None
