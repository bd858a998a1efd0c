"""Pipelines for a device: reductions before mapping, mapping, reductions that keep to couplings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcomp.ir.gates import gate
from qcomp.pipelines import for_basis

if TYPE_CHECKING:
    from qcomp.device import Device

__all__ = ["around_mapping", "for_device"]


def around_mapping(one_qubit: str, effort: str = "default") -> str:
    """Return the steps that map a circuit over ``cx`` and reduce it on its pairs of qubits.

    A swap and the block beside it become one block, gates meet through what moved. No step makes a
    gate on a pair that had none.

    Args:
        one_qubit: The one-qubit gates as ``fuse-one-qubit`` takes them, such as "rz-sx-x".
        effort: fast, default or max.
    """
    fuse = f"fuse-one-qubit{{basis={one_qubit}}}"
    blocks = f"consolidate-two-qubit{{basis={one_qubit},two_qubit=4}}"
    sweep = "merge-rotations,cancel-inverses"
    mapping = f"map-to-device{{basis={one_qubit},effort={effort}}}"
    return f"{mapping},{sweep},{blocks},{sweep},{fuse}"


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
    single = tuple(name for name in basis if gate(name).num_qubits == 1)
    before = for_basis((*single, "cx"), one_qubit, "fast")
    text = f"{before},{around_mapping(one_qubit, effort)},{native}"
    if device.is_symmetric:
        return text
    own = f"to-basis{{gates=[{','.join(basis)}]}}"
    return f"{text},orient-gates,{own},fuse-one-qubit{{basis={one_qubit}}},{own}"
