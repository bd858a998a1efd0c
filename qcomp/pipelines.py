"""The pipelines that have names: what each effort does to a circuit, as text."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["EFFORT_PIPELINES", "for_basis"]

_ROUNDS: Mapping[str, int] = MappingProxyType({"fast": 1, "default": 4, "max": 32})
"""Most rounds of the reductions; they stop as soon as nothing changes."""

EFFORT_PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        "fast": "to-basis{max_qubits=2},"
        "merge-rotations,cancel-inverses,merge-rotations,cancel-inverses",
        **{
            effort: "to-basis{max_qubits=2},"
            f"repeat{{times={_ROUNDS[effort]}}}(merge-rotations,cancel-inverses,fuse-one-qubit)"
            for effort in ("default", "max")
        },
    }
)
"""Effort -> pipeline text for a circuit without a target: gates stay the user's own, those on three
and more qubits are taken apart, since their parts are where most is to be saved."""


def for_basis(gates: tuple[str, ...], one_qubit: str, effort: str = "default") -> str:
    """Return the pipeline text for a machine.

    Trained weights become numbers first. Rotations meet through ``cx`` and not through the
    ``h cz h`` that a machine may have for it, so circuits are reduced over ``cx``, then written in
    the basis and reduced again; the last step sees to it that only gates of the basis are left.

    Args:
        gates: The basis, such as ("cz", "rz", "sx", "x").
        one_qubit: Its one-qubit gates as ``fuse-one-qubit`` takes them, such as "rz-sx-x".
        effort: fast, default or max.
    """
    to_basis = f"to-basis{{gates=[{','.join(gates)}]}}"
    fuse = f"fuse-one-qubit{{basis={one_qubit}}}"
    over_cx = "bind-weights,to-basis{gates=[cx],max_qubits=1}"
    if effort == "fast":
        sweep = "merge-rotations,cancel-inverses"
        return f"{over_cx},{sweep},{to_basis},{fuse},merge-rotations,{to_basis}"
    times = f"repeat{{times={_ROUNDS[effort]}}}"
    return (
        f"{over_cx},{times}(merge-rotations,cancel-inverses,fuse-one-qubit),"
        f"{to_basis},{times}(merge-rotations,cancel-inverses,{fuse}),{to_basis}"
    )
