"""Unitaries: matrices to circuits, exact to rounding, with as few CX gates as are known."""
