"""Targets as data: one TOML file a machine."""
