"""Hamiltonian evolution: commuting groups, product formulas, their errors."""

from __future__ import annotations
