"""Real vectors as amplitudes: the encoding's map as ONNX operators, or as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.constructions.encodings.amplitude import amplitude
from qcomp.ir.circuit import Circuit

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passes.lower.layers.glue import Glue

__all__ = ["append_loader", "load_angles", "loaded_numbers", "loader_size"]


class _Term:
    """A value that is added and multiplied as arrays are."""

    def __init__(self, glue: Glue, value: ir.Value) -> None:
        self.glue = glue
        self.value = value

    def _with(self, op_type: str, other: _Term | float, *, swap: bool = False) -> _Term:
        term = other.value if isinstance(other, _Term) else self.glue.constant(other)
        given = [term, self.value] if swap else [self.value, term]
        return _Term(self.glue, self.glue.op(op_type, given))

    def __add__(self, other: _Term | float) -> _Term:
        return self._with("Add", other)

    __radd__ = __add__

    def __sub__(self, other: _Term | float) -> _Term:
        return self._with("Sub", other)

    def __rsub__(self, other: float) -> _Term:
        return self._with("Sub", other, swap=True)

    def __mul__(self, other: _Term | float) -> _Term:
        return self._with("Mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: _Term | float) -> _Term:
        return self._with("Div", other)


class _GraphOps:
    """The operations of encodings' maps, written as ONNX operators in float64."""

    def __init__(self, glue: Glue) -> None:
        self.glue = glue

    def _op(self, op_type: str, inputs: Sequence[ir.Value], **attributes: Any) -> _Term:  # noqa: ANN401
        return _Term(self.glue, self.glue.op(op_type, inputs, attributes))

    def columns(self, x: _Term, index: Sequence[int]) -> _Term:
        """Return ``x[..., index]``."""
        places = self.glue.constant(list(index), np.int64)
        return self._op("Gather", [x.value, places], axis=-1)

    def joined(self, parts: Sequence[_Term]) -> _Term:
        """Return values side by side on their last axis."""
        return self._op("Concat", [part.value for part in parts], axis=-1)

    def matmul(self, x: _Term, matrix: NDArray[np.float64]) -> _Term:
        """Return ``x @ matrix``."""
        return _Term(self.glue, self.glue.matmul(x.value, matrix))

    def constant(self, values: NDArray[np.float64]) -> _Term:
        """Return a constant."""
        return _Term(self.glue, self.glue.constant(values))

    def positive(self, x: _Term, then: _Term | float, other: _Term | float) -> _Term:
        """Return ``then`` where ``x > 0``, else ``other``."""
        given = [
            part.value if isinstance(part, _Term) else self.glue.constant(part)
            for part in (then, other)
        ]
        above = self.glue.op("Greater", [x.value, self.glue.constant(0.0)])
        return self._op("Where", [above, *given])

    def sqrt(self, x: _Term) -> _Term:
        """Return the square root."""
        return self._op("Sqrt", [x.value])

    def atan(self, x: _Term) -> _Term:
        """Return the arc tangent."""
        return _Term(self.glue, self.glue.angle(x.value, self.glue.constant(1.0)))

    def exp(self, x: _Term) -> _Term:
        """Return the exponential."""
        return self._op("Exp", [x.value])

    def floor(self, x: _Term) -> _Term:
        """Return the largest whole number that is not above."""
        return self._op("Floor", [x.value])

    def largest(self, x: _Term) -> _Term:
        """Return the maximum along the last axis, which stays with size 1."""
        axes = self.glue.constant([-1], np.int64)
        return self._op("ReduceMax", [x.value, axes], keepdims=1)


def loader_size(features: int) -> int:
    """Return how many qubits so many amplitudes take, at least one."""
    return max(1, (features - 1).bit_length())


def load_angles(glue: Glue, x: ir.Value, features: int) -> ir.Value:
    """Write the angles that load [..., features], padded by zeros; the norm is left out."""
    encoding = amplitude(loader_size(features), features)
    assert encoding.slot_map is not None
    found = encoding.slot_map.compute(_GraphOps(glue), _Term(glue, x), None)
    assert isinstance(found, _Term)
    return found.value


def loaded_numbers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles that load vectors, float64[rows, features] -> float64[rows, angles]."""
    return amplitude(loader_size(values.shape[1]), values.shape[1]).parameters(values)


def append_loader(
    circuit: Circuit, features: int, wires: Sequence[int], letter: str
) -> tuple[Circuit, list[str]]:
    """Append the loader with parameters ``letter0``, ``letter1`` ...

    Returns:
        (the circuit, the parameters in the order of the angles).
    """
    loader = amplitude(len(wires), features).circuit
    names = [f"{letter}{i}" for i in range(loader.num_params)]
    for name in names:
        if name not in circuit.params:
            circuit.params = (*circuit.params, name)
    own = loader.copy()
    own.params = tuple(names)
    return circuit.compose(own, list(wires)), names
