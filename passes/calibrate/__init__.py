"""Calibration: run data through the float graph and find the ranges of its activations."""
