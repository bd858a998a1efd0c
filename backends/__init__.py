"""Backends: programs to files that machines take."""
