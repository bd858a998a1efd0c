"""Passes over the classical graph."""
