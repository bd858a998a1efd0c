"""Cost models: what a circuit costs, as a value made of weights."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qcomp.errors import UsageError, suggest
from qcomp.ir.circuit import Circuit
from qcomp.ir.stats import Stats

if TYPE_CHECKING:
    from qcomp.device import Device
    from qcomp.target import Target

__all__ = ["CostModel"]

_TERM = re.compile(r"\s*(?:([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*\*\s*)?([A-Za-z_][A-Za-z_0-9]*)\s*")


@dataclass(frozen=True, slots=True)
class CostModel:
    """``cost = sum of weight * count`` over the counts of a circuit, each as in ``Stats``.

    Attributes:
        gates: Weight of a gate, those on several qubits among them.
        two_qubit: Weight that a gate on two qubits has besides.
        multi_qubit: Weight that a gate on three or more qubits has besides.
        pulses: Weight that a gate on one qubit has besides when it is no turn about Z.
        t: Weight of a T gate.
        rotations: Weight of a rotation that is not Clifford, T gates among them.
        depth: Weight of a layer.
        two_qubit_depth: Weight of a layer of gates on two and more qubits.
    """

    gates: float = 0.0
    two_qubit: float = 0.0
    multi_qubit: float = 0.0
    pulses: float = 0.0
    t: float = 0.0
    rotations: float = 0.0
    depth: float = 0.0
    two_qubit_depth: float = 0.0

    def __post_init__(self) -> None:
        """Check the weights.

        Raises:
            UsageError: If a weight is negative or not finite, or all are zero.
        """
        weights = dataclasses.astuple(self)
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise UsageError("the weights of a cost must be finite and not negative")
        if not any(weights):
            raise UsageError("a cost needs a weight above 0", hint="for instance gates+3*two_qubit")

    @staticmethod
    def parse(text: str) -> CostModel:
        """Return the model of a text such as ``two_qubit`` or ``gates+3*two_qubit``.

        Raises:
            UsageError: If the text is no sum of counts with weights, or names a count twice.
        """
        known = [field.name for field in dataclasses.fields(CostModel)]
        weights: dict[str, float] = {}
        for part in re.split(r"(?<![eE])\+", text):
            match = _TERM.fullmatch(part)
            if match is None:
                raise UsageError(
                    f"'{text}' is no cost", hint="a sum such as gates+3*two_qubit, of " + _of(known)
                )
            factor, name = match.groups()
            if name not in known:
                raise UsageError(f"a cost has no count '{name}'", hint=suggest(name, known))
            if name in weights:
                raise UsageError(f"the cost '{text}' names '{name}' twice")
            try:
                weights[name] = float(factor or 1)
            except ValueError:
                raise UsageError(f"'{factor}' is no weight") from None
        return CostModel(**weights)

    @staticmethod
    def of_errors(one_qubit: float, two_qubit: float) -> CostModel:
        """Return the model whose cost is -log of the chance that no gate fails.

        Args:
            one_qubit: Error rate of a one-qubit gate, in [0, 1).
            two_qubit: Error rate of a two-qubit gate, in [0, 1), at least ``one_qubit``.

        Raises:
            UsageError: If a rate is out of its range.
        """
        if not 0 <= one_qubit <= two_qubit < 1:
            raise UsageError(
                f"error rates must hold 0 <= one_qubit <= two_qubit < 1, "
                f"not {one_qubit} and {two_qubit}"
            )
        single = -math.log1p(-one_qubit)
        return CostModel(gates=single, two_qubit=-math.log1p(-two_qubit) - single)

    @staticmethod
    def of_device(device: Device, virtual: tuple[str, ...] = ()) -> CostModel:
        """Return the model whose cost is -log of the chance that no gate of a machine fails.

        The rates are medians over the machine's qubits and pairs: of its worst pulse, and of its
        best gate on two qubits.

        Args:
            device: The machine.
            virtual: Gates that are a change of frame and do not fail, such as ``rz``.

        Raises:
            UsageError: If the device does not know the error rates of its gates.
        """
        from qcomp.device import num_operands

        medians: dict[int, list[float]] = {1: [], 2: []}
        for gate, rates in device.errors.items():
            known = rates[np.isfinite(rates) & (rates < 1)]
            if gate not in ("measure", "reset", "id", *virtual) and len(known):
                medians.setdefault(num_operands(gate), []).append(float(np.median(known)))
        if not medians[1] or not medians[2]:
            raise UsageError(
                f"the error rates of '{device.name}' are not known, so they are no cost",
                hint="take a machine with figures, such as --device fake_torino, or say the "
                "weights, such as pulses+30*two_qubit",
            )
        single, pair = (-math.log1p(-rate) for rate in (max(medians[1]), min(medians[2])))
        if "rz" in virtual:
            return CostModel(pulses=single, two_qubit=pair)
        return CostModel(gates=single, two_qubit=max(pair - single, 0.0))

    @staticmethod
    def for_target(text: str | CostModel, target: Target | None) -> CostModel:
        """Return the model that a user names: a text, or ``errors`` for the target's error rates.

        Raises:
            UsageError: If the text is no cost, or there are no error rates to take.
        """
        if isinstance(text, CostModel):
            return text
        if text.strip() != "errors":
            return CostModel.parse(text)
        device = None if target is None else target.hardware
        if target is None or device is None:
            raise UsageError(
                "the cost 'errors' needs a machine whose error rates are known",
                hint="for instance -t ibm-heron --device fake_torino",
            )
        return CostModel.of_device(device, target.native.virtual)

    def __str__(self) -> str:
        """Return the text form; parsing it gives an equal model."""
        parts = []
        for field in dataclasses.fields(self):
            weight = getattr(self, field.name)
            if weight:
                factor = "" if weight == 1 else f"{weight:.0f}*" if weight == int(weight) else None
                parts.append((f"{weight!r}*" if factor is None else factor) + field.name)
        return "+".join(parts)

    def of_stats(self, stats: Stats) -> float:
        """Return the cost of a circuit with these counts."""
        return (
            self.gates * stats.gates
            + self.two_qubit * stats.two_qubit
            + self.multi_qubit * stats.multi_qubit
            + self.pulses * stats.pulses
            + self.t * stats.t_count
            + self.rotations * stats.rotations
            + self.depth * stats.depth
            + self.two_qubit_depth * stats.two_qubit_depth
        )

    def of(self, circuit: Circuit) -> float:
        """Return the cost of a circuit; bodies of control flow count once, branches all."""
        return self.of_stats(circuit.stats())

    @property
    def is_local(self) -> bool:
        """Whether the cost of a circuit is the sum over its parts: it is, without depths."""
        return not self.depth and not self.two_qubit_depth


def _of(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
