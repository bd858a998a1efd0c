"""What a model's output loses for every number of bits of every weight, and what was chosen of it.

All methods give the same table: how much the output is wrong if one tensor alone is stored in one
of several ways. Errors of different tensors are taken to add up, which holds where they are small
and unrelated: the outputs' change is then a sum of independent vectors, and squared error and
Kullback-Leibler divergence are quadratic in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["AllocatedBits", "BitChoice", "Sensitivities", "TensorSensitivity"]


@dataclass(frozen=True, slots=True)
class BitChoice:
    """One way to store a tensor.

    Attributes:
        bits: Of its integers.
        group: Values that share a scale; 0 for a whole row or output channel.
        bytes: In the file: integers, scales and zero points.
        error: Of the model's output, in the unit of the table.
    """

    bits: int
    group: int
    bytes: int
    error: float

    def __str__(self) -> str:
        """Return ``4/32``: bits and group."""
        return f"{self.bits}/{self.group}" if self.group else f"{self.bits}"


@dataclass(frozen=True, slots=True)
class TensorSensitivity:
    """One tensor with the ways to store it.

    Attributes:
        weight: Name of the float tensor.
        nodes: Operators that read it.
        op_type: Type of the first of them.
        size: Number of values.
        choices: Ways to store it, fewest bytes first.
        value: The method's own figure, such as a largest eigenvalue; None where the errors are it.
    """

    weight: str
    nodes: tuple[str, ...]
    op_type: str
    size: int
    choices: tuple[BitChoice, ...]
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """The sensitivities of a model's tensors, in graph order.

    Attributes:
        method: How they were found.
        unit: Of the errors.
        samples: Rows of data that they were found on.
        data: ``calibration`` or ``generated``.
        tensors: One entry a tensor.
    """

    method: str
    unit: str
    samples: int
    data: str
    tensors: tuple[TensorSensitivity, ...]


@dataclass(frozen=True, slots=True)
class AllocatedBits:
    """What was chosen under one budget.

    Attributes:
        method: How it was searched.
        sensitivity: How sensitivities were found.
        unit: Of errors.
        chosen: Tensor -> how it will be stored.
        bytes: Of all tensors together.
        error: Sum of the errors that the table says.
        max_bytes: The budget; None where the error was bounded.
        max_error: The bound on the error; None where bytes were bounded.
        uniform: The same number of bits for all -> (bytes, error) of the table.
        predicted: What else was limited -> what the table of costs says of it.
    """

    method: str
    sensitivity: str
    unit: str
    chosen: Mapping[str, BitChoice]
    bytes: int
    error: float
    max_bytes: int | None
    max_error: float | None
    uniform: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)
