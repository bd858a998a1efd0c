"""Noise: fewer measured circuits, readout errors undone, expectation values at zero noise."""

from __future__ import annotations

from qcomp.mitigation.extrapolation import Extrapolation, extrapolate
from qcomp.mitigation.folding import fold, fold_scale, unfold
from qcomp.mitigation.grouping import Group, combine, group_observables, ungrouped_count
from qcomp.mitigation.options import Mitigation
from qcomp.mitigation.readout import Confusion
from qcomp.mitigation.success import Success, success_probability
from qcomp.mitigation.zne import zero_noise

__all__ = [
    "Confusion",
    "Extrapolation",
    "Group",
    "Mitigation",
    "Success",
    "combine",
    "extrapolate",
    "fold",
    "fold_scale",
    "group_observables",
    "success_probability",
    "unfold",
    "ungrouped_count",
    "zero_noise",
]
