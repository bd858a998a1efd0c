"""OpenQASM 2 and 3: a compiled scanner for straight-line text, a grammar for everything else."""
