"""What an encoding is: a circuit of slots, and the classical map that fills them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir.angle import Angle, Parameter
from qcomp.ir.circuit import Circuit

__all__ = ["NUMPY", "Encoding", "Map", "Ops", "SlotMap", "check_sizes", "parameters"]


class Ops(Protocol):
    """The operations that maps are made of, beside ``+ - *`` and ``/`` of arrays and numbers.

    NumPy computes them here, torch in ``qcomp.nn``, and a pass writes them as ONNX nodes.
    """

    def columns(self, x: Any, index: Sequence[int]) -> Any:  # noqa: ANN401
        """Return ``x[..., index]``."""

    def joined(self, parts: Sequence[Any]) -> Any:  # noqa: ANN401
        """Return arrays side by side on their last axis."""

    def matmul(self, x: Any, matrix: NDArray[np.float64]) -> Any:  # noqa: ANN401
        """Return ``x @ matrix``."""

    def constant(self, values: NDArray[np.float64]) -> Any:  # noqa: ANN401
        """Return an array of numbers that are known."""

    def positive(self, x: Any, then: Any, other: Any) -> Any:  # noqa: ANN401
        """Return ``then`` where ``x > 0``, else ``other``."""

    def sqrt(self, x: Any) -> Any:  # noqa: ANN401
        """Return the square root."""

    def atan(self, x: Any) -> Any:  # noqa: ANN401
        """Return the arc tangent."""

    def exp(self, x: Any) -> Any:  # noqa: ANN401
        """Return the exponential."""

    def floor(self, x: Any) -> Any:  # noqa: ANN401
        """Return the largest whole number that is not above."""

    def largest(self, x: Any) -> Any:  # noqa: ANN401
        """Return the maximum along the last axis, which stays with size 1."""


class _NumPy:
    def columns(self, x: Any, index: Sequence[int]) -> Any:  # noqa: ANN401
        return x[..., list(index)]

    def joined(self, parts: Sequence[Any]) -> Any:  # noqa: ANN401
        return np.concatenate(list(parts), axis=-1)

    def matmul(self, x: Any, matrix: NDArray[np.float64]) -> Any:  # noqa: ANN401
        return x @ matrix

    def constant(self, values: NDArray[np.float64]) -> Any:  # noqa: ANN401
        return values

    def positive(self, x: Any, then: Any, other: Any) -> Any:  # noqa: ANN401
        return np.where(x > 0, then, other)

    def sqrt(self, x: Any) -> Any:  # noqa: ANN401
        return np.sqrt(x)

    def atan(self, x: Any) -> Any:  # noqa: ANN401
        return np.arctan(x)

    def exp(self, x: Any) -> Any:  # noqa: ANN401
        return np.exp(x)

    def floor(self, x: Any) -> Any:  # noqa: ANN401
        return np.floor(x)

    def largest(self, x: Any) -> Any:  # noqa: ANN401
        return x.max(axis=-1, keepdims=True)


NUMPY: Ops = _NumPy()
"""The operations on NumPy arrays, float64."""

Map = Callable[[Ops, Any, Any], Any]
"""``map(ops, features[..., D], weights[..., W])`` gives the slots [..., S]."""


@dataclass(frozen=True, slots=True)
class SlotMap:
    """The classical part of an encoding whose angles are no affine functions of the features.

    Attributes:
        slots: How many of the circuit's first parameters it fills in.
        weights: How many of the encoding's first weights it reads.
        compute: The map.
    """

    slots: int
    weights: int
    compute: Map


@dataclass(frozen=True, slots=True)
class Encoding:
    """Data as a state: a circuit from |0...0> whose angles are features, or are made of them.

    Attributes:
        method: Its name in the table.
        circuit: Without a map, its parameters are the features and then the weights. With one they
            are the map's slots, and then the weights that the map does not read.
        features: Names of the features, in order.
        weights: Names of trained weights, in order, those that the map reads first.
        slot_map: What computes slots; None where angles are affine in the features.
        equation: What state it is.
        note: What else the user should know; may be empty.
    """

    method: str
    circuit: Circuit
    features: tuple[str, ...]
    weights: tuple[str, ...] = ()
    slot_map: SlotMap | None = None
    equation: str = ""
    note: str = ""

    @property
    def cost(self) -> str:
        """Qubits, two-qubit gates, depth and features in one sentence."""
        stats = self.circuit.stats()
        where = "in the graph" if self.slot_map else "as angles"
        count = f" and {len(self.weights)} weights" if self.weights else ""
        return (
            f"'{self.method}' of {len(self.features)} features{count} {where}: "
            f"{stats.qubits} qubits, {stats.two_qubit} two-qubit gates, depth {stats.depth}"
        )

    def parameters(self, x: ArrayLike, weights: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the circuit's parameters for rows of features, float64[B, P].

        Args:
            x: float64[B, D] or [D].
            weights: float64[W] or [B, W]; none where the encoding has none.

        Raises:
            UsageError: If a size does not fit, or a feature is not finite.
        """
        rows = np.atleast_2d(np.asarray(x, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != len(self.features):
            raise UsageError(
                f"the encoding '{self.method}' takes {len(self.features)} features, not an array "
                f"of shape {list(np.shape(x))}",
                hint="encoding(..., features=...) sets their number",
            )
        if not np.isfinite(rows).all():
            raise UsageError(f"a feature of '{self.method}' is not a finite number")
        values = np.zeros(0) if weights is None else np.asarray(weights, dtype=np.float64)
        if values.shape[-1] != len(self.weights):
            raise UsageError(
                f"the encoding '{self.method}' has {len(self.weights)} weights, "
                f"{values.shape[-1]} were given"
            )
        values = np.broadcast_to(values, (len(rows), len(self.weights)))
        if self.slot_map is None:
            return np.concatenate([rows, values], axis=1)
        read = self.slot_map.weights
        slots = self.slot_map.compute(NUMPY, rows, values[:, :read])
        return np.concatenate([slots, values[:, read:]], axis=1)


def parameters(letter: str, count: int) -> list[Angle]:
    """Return the parameters ``letter0``, ``letter1`` ..."""
    return [Parameter(f"{letter}{i}") for i in range(count)]


def check_sizes(method: str, num_qubits: int, features: int, most: int, hint: str = "") -> None:
    """Check that there are as many features as an encoding takes.

    Raises:
        UsageError: If there are none, or more than ``most``.
    """
    if num_qubits < 1:
        raise UsageError(f"the encoding '{method}' needs at least one qubit, not {num_qubits}")
    if not 1 <= features <= most:
        raise UsageError(
            f"the encoding '{method}' takes 1 .. {most} features on {num_qubits} qubits, "
            f"not {features}",
            hint=hint or "take more qubits, or 'amplitude', which takes 2^n",
        )
