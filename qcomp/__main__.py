"""``python -m qcomp``."""

from qcomp.cli.main import main

main()
