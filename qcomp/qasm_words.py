"""The words that OpenQASM keeps for itself, for those who read it and those who write it."""

from __future__ import annotations

__all__ = ["RESERVED"]

RESERVED: frozenset[str] = frozenset(
    "OPENQASM include defcalgrammar def cal defcal gate extern box let break continue if else end "
    "return for while in switch case default nop pragma input output const readonly mutable qreg "
    "qubit creg bool bit int uint float angle complex array void duration stretch opaque gphase "
    "inv pow ctrl negctrl durationof delay reset measure barrier true false im pi tau euler sin "
    "cos tan arcsin arccos arctan exp log ln sqrt ceiling floor mod popcount rotl rotr real imag "
    "sizeof U CX".split()
)
"""Keywords, built-in gates, constants and functions of OpenQASM 2 and 3."""
