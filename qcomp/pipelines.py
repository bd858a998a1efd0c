"""The pipelines that have names: what each effort does to a circuit, as text."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from qcomp.ir.gates import gate

__all__ = ["EFFORT_PIPELINES", "for_basis"]

_SWEEP = "merge-rotations,cancel-inverses"
"""Linear: rotations meet over wires and parities, inverse neighbours go."""

_ACROSS = f"{_SWEEP},merge-pauli-rotations,cancel-inverses"
"""Rotations meet across Hadamards too; the sweep first leaves it little to visit."""

_BLOCKS = "consolidate-two-qubit{{basis={one_qubit},two_qubit=4}}"
"""A CX gate weighs as much as four others: dearer ones buy CX gates with too many others."""

_MAX_ROUNDS = 8
"""Most rounds of the ``max`` effort; it stops as soon as nothing changes."""

EFFORT_PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        "fast": f"to-basis{{max_qubits=2}},{_SWEEP},{_SWEEP}",
        "default": f"to-basis{{max_qubits=2}},{_ACROSS},"
        f"consolidate-two-qubit{{two_qubit=4}},{_SWEEP},fuse-one-qubit",
        "max": f"to-basis{{max_qubits=2}},repeat{{times={_MAX_ROUNDS}}}"
        f"({_ACROSS},consolidate-two-qubit{{two_qubit=4}},{_SWEEP},fuse-one-qubit)",
    }
)
"""Effort -> pipeline text for a circuit without a target: gates stay the user's own, those on three
and more qubits are taken apart, since their parts are where most is to be saved."""


def for_basis(gates: tuple[str, ...], one_qubit: str, effort: str = "default") -> str:
    """Return the pipeline text for a machine.

    Trained weights become numbers first. Rotations meet through ``cx`` and not through the
    ``h cz h`` that a machine may have for it, so circuits are reduced over ``cx`` and the machine's
    one-qubit gates, and written in its own two-qubit gates after that; the last step sees to it
    that only gates of the basis are left.

    Args:
        gates: The basis, such as ("cz", "rz", "sx", "x").
        one_qubit: Its one-qubit gates as ``fuse-one-qubit`` takes them, such as "rz-sx-x".
        effort: fast, default or max.
    """
    single = [name for name in gates if gate(name).num_qubits == 1]
    fuse = f"fuse-one-qubit{{basis={one_qubit}}}"
    blocks = _BLOCKS.format(one_qubit=one_qubit)
    over_cx = "bind-weights,to-basis{gates=[cx],max_qubits=1}"
    into = f"to-basis{{gates=[{','.join((*single, 'cx'))}]}}"
    own = f"to-basis{{gates=[{','.join(gates)}]}}"
    last = own if "cx" in gates else f"{own},{_SWEEP},{fuse},{own}"
    if effort == "fast":
        return f"{over_cx},{_SWEEP},{into},{fuse},{_SWEEP},{last}"
    if effort == "default":
        return f"{over_cx},{_ACROSS},{into},{_SWEEP},{fuse},{blocks},{_SWEEP},{fuse},{last}"
    rounds = f"repeat{{times={_MAX_ROUNDS}}}({_ACROSS},{fuse},{blocks},{_SWEEP},{fuse})"
    return f"{over_cx},{_ACROSS},{into},{rounds},{last}"
