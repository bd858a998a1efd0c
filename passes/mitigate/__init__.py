"""Passes for noisy machines: noise made larger on purpose, idle times used."""
