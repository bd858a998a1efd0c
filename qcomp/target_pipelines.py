"""The pipelines of targets, made of their gates; the files of the targets hold the same texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qcomp.ir.gates import BY_NAME
from qcomp.native_pipelines import for_native, into_native
from qcomp.pipelines import for_basis

if TYPE_CHECKING:
    from qcomp.target import Target

__all__ = ["mapped_pipeline", "target_pipelines"]

_EFFORTS = ("fast", "default", "max")
_NUMERIC = re.compile(r"consolidate-two-qubit(\{[^}]*\})?,")


def target_pipelines(target: Target) -> dict[str, str]:
    """Return effort -> pipeline text for a quantum machine.

    Args:
        target: The machine; its gates, their limits and the form of its one-qubit gates count.
    """
    return {effort: _pipeline(target, effort) for effort in _EFFORTS}


def mapped_pipeline(target: Target, effort: str, text: str) -> str:
    """Return the pipeline of a machine with the mapping to its device around it.

    Where each qubit is coupled with each there is nothing to map, unless the user says which qubits
    to take. A pipeline that maps by itself stays as it is.

    Args:
        target: The machine.
        effort: fast, default or max.
        text: The pipeline without a mapping.
    """
    device = target.device
    if device is None or "map-to-device" in text:
        return text
    if device.is_all_to_all and target.initial_layout is None:
        return text
    from qcomp.device_pipelines import for_device

    basis, one_qubit = target.basis, target.native.one_qubit
    native = text if device.is_all_to_all else target.pipelines.get("fast", text)
    if not _is_exact(basis) and not _is_reducible(target):
        if text == _pipeline(target, effort) and not device.is_all_to_all:
            native = into_native(basis, _limited(target))
        basis, one_qubit = ("rz", "sx", "x", "cz"), "rz-sx-x"
    mapped = for_device(basis, one_qubit, device, effort, native)
    return _NUMERIC.sub("", mapped) if _is_exact(target.basis) else mapped


def _is_exact(basis: tuple[str, ...]) -> bool:
    """Whether no gate has an angle."""
    return not any(BY_NAME[name].num_angles for name in basis)


def _is_reducible(target: Target) -> bool:
    """Whether the reductions know the machine's one-qubit gates."""
    single = set(target.native.one_qubit.split("-"))
    return not _limited(target) and bool(single & {"u", "h"} or {"rz", "sx"} <= single)


def _pipeline(target: Target, effort: str) -> str:
    basis, one_qubit = target.basis, target.native.one_qubit
    if _is_exact(basis):
        return _exact(basis, one_qubit, effort)
    if _is_reducible(target):
        return for_basis(basis, one_qubit, effort)
    return for_native(basis, _limited(target), effort)


def _limited(target: Target) -> tuple[str, ...]:
    """Return the gates of the machine that take certain angles only."""
    gates = dict.fromkeys(limit.gate for limit in target.native.limits)
    return tuple(gate for gate in gates if gate in target.basis)


def _exact(basis: tuple[str, ...], one_qubit: str, effort: str) -> str:
    """Return the pipeline of a machine whose gates have no angles.

    Blocks on two qubits are not written anew: their matrices are numbers, which such gates do not
    meet. T gates are the dear ones, so their count is reduced at the end.
    """
    text = _NUMERIC.sub("", for_basis(basis, one_qubit, effort))
    own = f"to-basis{{gates=[{','.join(basis)}]}}"
    if effort == "fast" or not {"t", "h"} <= set(basis):
        return text
    return f"{text},reduce-t-count,{own},fuse-one-qubit{{basis={one_qubit}}},{own}"
