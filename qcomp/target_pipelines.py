"""The pipelines of targets, made of their gates; the files of the targets hold the same texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qcomp.ir.gates import BY_NAME
from qcomp.pipelines import for_basis

if TYPE_CHECKING:
    from qcomp.target import Target

__all__ = ["target_pipelines"]

_EFFORTS = ("fast", "default", "max")
_NUMERIC = re.compile(r"consolidate-two-qubit(\{[^}]*\})?,")


def target_pipelines(target: Target) -> dict[str, str]:
    """Return effort -> pipeline text for a quantum machine.

    Args:
        target: The machine; its gates and the form of its one-qubit gates count.
    """
    basis, one_qubit = target.basis, target.native.one_qubit
    if not any(BY_NAME[name].num_angles for name in basis):
        return {effort: _exact(basis, one_qubit, effort) for effort in _EFFORTS}
    return {effort: for_basis(basis, one_qubit, effort) for effort in _EFFORTS}


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
