"""Mapping to a device: basis gates, layout, routing."""
