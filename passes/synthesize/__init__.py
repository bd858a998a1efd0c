"""Circuits made from unitaries, states, Cliffords and phase polynomials."""
