"""Polynomials of matrices: phases of signal processing, approximations, block encodings."""

from __future__ import annotations
