"""Levels, tables and scales of weights that are looked up, fitted to a layer's output."""
