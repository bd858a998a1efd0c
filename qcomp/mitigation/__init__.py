"""Noise: fewer measured circuits, readout errors undone, expectation values at zero noise."""

from __future__ import annotations

from qcomp.mitigation.grouping import Group, combine, group_observables, ungrouped_count

__all__ = ["Group", "combine", "group_observables", "ungrouped_count"]
