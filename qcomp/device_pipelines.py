"""Pipelines for a device: reductions before mapping, mapping, reductions that keep to couplings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcomp.pipelines import for_basis

if TYPE_CHECKING:
    from qcomp.device import Device

__all__ = ["around_mapping", "for_device"]

_OVER_CX = "bind-weights,to-basis{gates=[cx],max_qubits=1}"
_SWEEP = "merge-rotations,cancel-inverses"


def around_mapping(one_qubit: str, effort: str = "default") -> str:
    """Return the steps that map a circuit over ``cx`` and reduce it on its pairs of qubits.

    A swap and the block beside it become one block, gates meet through what moved. No step makes a
    gate on a pair that had none.

    Args:
        one_qubit: The one-qubit gates as ``fuse-one-qubit`` takes them, such as "rz-sx-x".
        effort: fast, default or max.
    """
    blocks = f"consolidate-two-qubit{{basis={one_qubit},two_qubit=4}}"
    seeds = ",seeds=4" if effort == "max" else ""
    mapping = f"map-to-device{{basis={one_qubit},effort={effort}{seeds}}}"
    return f"{mapping},{_SWEEP},{blocks},{_SWEEP}"


def for_device(
    basis: tuple[str, ...], one_qubit: str, device: Device, effort: str, native: str
) -> str:
    """Return the pipeline text for a machine that circuits are mapped to.

    Args:
        basis: The machine's gates.
        one_qubit: Its one-qubit gates as ``fuse-one-qubit`` takes them.
        device: The machine.
        effort: fast, default or max.
        native: Pipeline that writes a circuit in the machine's gates, pair by pair.
    """
    if device.is_all_to_all:
        return f"map-to-device,{native}"
    own = f"to-basis{{gates=[{','.join(basis)}]}}"
    fuse = f"fuse-one-qubit{{basis={one_qubit}}}"
    if native == for_basis(basis, one_qubit, "fast"):
        # What it does over cx is done: only the ends of blocks are left to fuse.
        native = f"{own},{fuse},{own}"
    text = f"{_OVER_CX},{_SWEEP},{around_mapping(one_qubit, effort)},{native}"
    return text if device.is_symmetric else f"{text},orient-gates,{own},{fuse},{own}"
