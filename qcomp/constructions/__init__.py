"""Constructions: circuits from arrays by closed formulas, for passes and layers alike.

Pure functions that append to a circuit. What searches or optimises stands in
``qcomp.passes.synthesize``.
"""

from __future__ import annotations
