"""The shared IR: programs, circuits, gates, angles. Knows no file format and no vendor."""
