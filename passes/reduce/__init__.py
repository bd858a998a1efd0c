"""Gate reduction: the same unitary from fewer gates."""
