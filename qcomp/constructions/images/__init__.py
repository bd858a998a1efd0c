"""Images as states: FRQI and NEQR, written with few CX, and read back from measurements."""

from __future__ import annotations
