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

_PARITIES = "resynthesize-phase-polynomials{tries=8}"
"""CX gates between rotations about parities, written anew."""

_MAX_ROUNDS = 8
"""Most rounds of the ``max`` effort; it stops as soon as nothing changes."""


def _blocks(one_qubit: str) -> str:
    """Return the step for two-qubit blocks.

    A CX gate weighs as much as four others: a dearer one buys CX gates with too many others.
    """
    return f"consolidate-two-qubit{{basis={one_qubit},two_qubit=4}}"


EFFORT_PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        "fast": f"to-basis{{max_qubits=2}},{_SWEEP},{_SWEEP}",
        "default": f"to-basis{{max_qubits=2}},{_ACROSS},{_PARITIES},"
        f"{_blocks('own')},{_SWEEP},fuse-one-qubit",
        "max": f"to-basis{{max_qubits=2}},repeat{{times={_MAX_ROUNDS}}}"
        f"({_ACROSS},{_PARITIES},{_blocks('own')},{_SWEEP},fuse-one-qubit)",
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
    over_cx = "bind-weights,to-basis{gates=[cx],max_qubits=1}"
    into = f"to-basis{{gates=[{','.join((*single, 'cx'))}]}}"
    own = f"to-basis{{gates=[{','.join(gates)}]}}"
    last = own if "cx" in gates else f"{own},{_SWEEP},{fuse},{own}"
    rewrite = f"{_PARITIES},{into},{_SWEEP},{_blocks(one_qubit)},{_SWEEP},{fuse}"
    if effort == "fast":
        return f"{over_cx},{_SWEEP},{into},{fuse},{_SWEEP},{last}"
    if effort == "default":
        return f"{over_cx},{_ACROSS},{rewrite},{last}"
    return f"{over_cx},repeat{{times={_MAX_ROUNDS}}}({_ACROSS},{rewrite}),{last}"
