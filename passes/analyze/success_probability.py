"""success-probability: how likely each circuit runs without a fault on the target's device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from qcomp.device import get_device
from qcomp.ir.program import Program
from qcomp.mitigation.success import Success, success_probability
from qcomp.passmanager import Context, GraphPass, Guarantee

__all__ = ["MeasureSuccess", "SuccessProbabilities"]


@dataclass(frozen=True, slots=True)
class SuccessProbabilities:
    """What the pass found: name of a circuit -> its expected success."""

    circuits: Mapping[str, Success]


@dataclass(frozen=True)
class MeasureSuccess(GraphPass):
    """Say ``ESP = prod (1 - e_g)`` over the gates and measurements of each circuit.

    Where durations and relaxation times are known, idle times of an as-soon-as-possible schedule
    have a factor too: the average fidelity of relaxation. Rates that are unknown make the whole
    unknown; the product of the known ones is then an upper bound, and is said as one.

    Preconditions: a device, by this pass's option or by the target. Circuits that are not mapped
    to it are judged by medians over the device.

    Preserved: everything; the result is a fact for later passes and one line for the user.

    Cost: linear.

    Source: Murali, Baker, Javadi-Abhari, Chong, Martonosi 2019 (arXiv:1901.11054).

    Attributes:
        device: Name of the device; the target's own where empty.
    """

    name: ClassVar[str] = "success-probability"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    device: str = ""

    def run(self, program: Program, context: Context) -> bool:
        """Look at every circuit; nothing changes."""
        target = context.target
        device = get_device(self.device) if self.device else target and target.hardware
        if not device:
            if program.circuits:
                context.warn(
                    "expected success unknown: no device; give --device or "
                    "success-probability{device=NAME}"
                )
            return False
        virtual = () if target is None else target.native.virtual
        found = {}
        for name, circuit in program.circuits.items():
            # A circuit of as many qubits as the device stands on its physical qubits.
            mapped = circuit.layout is not None or circuit.num_qubits == device.num_qubits
            found[name] = success_probability(circuit, device, virtual=virtual, typical=not mapped)
            context.warn(f"expected success of '{name}' on {device.name}: {found[name]}")
        context.put(SuccessProbabilities(found))
        return False
