"""Frontends: sources of all kinds to programs."""
