"""orient-gates: two-qubit gates are turned around where a machine has them in one direction."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.device import Device, get_device
from qcomp.errors import TargetError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import BY_NAME, GATES, IS_UNITARY, NUM_QUBITS
from qcomp.ir.run import Run
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["OrientGates"]

_AROUND = {
    "cx": (("h",), ("h",), ("h",), ("h",)),
    "rzx": (("h",), ("h",), ("h",), ("h",)),
    "ecr": (("x", "h"), ("h", "x"), ("h",), ("h",)),
}
"""Gate on (a, b) -> gates on a and on b before, and on a and on b after, the gate on (b, a)."""


@functools.cache
def _symmetric() -> NDArray[np.bool_]:
    """Return which gates do the same with their two operands exchanged, bool[codes]."""
    out = np.zeros(len(GATES), dtype=bool)
    swapped = [0, 2, 1, 3]
    for row in GATES:
        if row.num_qubits == 2 and row.is_unitary:
            matrix = row.matrix(*(0.37 + 0.29 * k for k in range(row.num_angles)))
            out[row.code] = np.allclose(matrix, matrix[swapped][:, swapped], atol=1e-12)
    return out


def orient_run(run: Run, forms: Forms, device: Device) -> Leaf:
    """Turn the gates of a run around that stand against the device's direction.

    Raises:
        TargetError: If a gate is on a pair that is not coupled, or cannot be turned.
    """
    two = np.flatnonzero((NUM_QUBITS[run.code] == 2) & IS_UNITARY[run.code])
    a, b = run.qubit[two, 0], run.qubit[two, 1]
    forward, backward = device.allows(a, b), device.allows(b, a)
    apart = np.flatnonzero(~(forward | backward))
    if len(apart):
        i = int(two[apart[0]])
        raise TargetError(
            f"'{GATES[run.code[i]].name}' acts on the qubits {run.operands(i)}",
            why=f"they are not coupled on '{device.name}'",
            hint="run map-to-device first",
        )
    wrong = two[~forward & ~_symmetric()[run.code[two]]]
    if not len(wrong):
        return run, forms, Phase()
    codes = {BY_NAME[name].code for name in _AROUND}
    strange = [i for i in wrong.tolist() if int(run.code[i]) not in codes]
    if strange:
        name = GATES[run.code[strange[0]]].name
        raise TargetError(
            f"'{name}' on the qubits {run.operands(strange[0])} cannot be turned around",
            why=f"'{device.name}' has the pair in the other direction only",
            hint="write the circuit over cx first: to-basis{gates=[cx],max_qubits=1}",
        )
    code: list[int] = []
    wire: list[int] = []
    place: list[int] = []
    for i in wrong.tolist():
        around = _AROUND[GATES[run.code[i]].name]
        for side, names in enumerate(around):
            for name in names:
                code.append(BY_NAME[name].code)
                wire.append(int(run.qubit[i, side % 2]))
                place.append(3 * i + (0 if side < 2 else 2))
    qubit = run.qubit.copy()
    qubit[wrong, :2] = run.qubit[wrong][:, [1, 0]]
    more = np.full((len(code), 3), -1, dtype=np.int32)
    more[:, 0] = wire
    whole = Run.concat([replace(run, qubit=qubit), Run.of(code, more)])
    keys = np.concatenate([3 * np.arange(len(run)) + 1, np.array(place, dtype=np.int64)])
    return whole.select(np.argsort(keys, kind="stable")), forms, Phase()


@dataclass(frozen=True)
class OrientGates(CircuitPass):
    """``CX(a, b) = (H x H) CX(b, a) (H x H)`` where only (b, a) is a pair of the device.

    The same for ``ecr``, with X gates more, and ``rzx``. Gates that do the same in both directions,
    such as ``cz``, stay; so does everything on devices with pairs in both directions.

    Preconditions: every two-qubit gate is on a coupled pair (``map-to-device`` sees to it).

    Preserves: the unitary exactly, global phase included.

    Cost: linear.

    Source: the identities of the gates' definitions, OpenQASM 3 (arXiv:2104.14722).

    Attributes:
        device: Name of the device; the target's own where empty.

    Raises:
        TargetError: If a gate is on a pair that is not coupled, or cannot be turned around.
    """

    name: ClassVar[str] = "orient-gates"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    device: str = ""

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with its gates in the device's directions.

        Raises:
            UsageError: If there is no device.
            TargetError: If a gate cannot be done on the device.
        """
        device = get_device(self.device) if self.device else None
        if device is None and context.target is not None:
            device = context.target.device
        if device is None:
            raise UsageError(
                "there is no device whose directions count",
                hint="give --device, or orient-gates{device=fake_torino}",
            )
        return rewrite_leaves(circuit, lambda run, forms: orient_run(run, forms, device))
