"""Times of operators over a grid of shapes: the table of latencies that comes with cpu-mixed.

    python benchmarks/measure_latencies.py FILE

FILE is a table as ``qcomp compile --latencies`` reads it. Every operator runs alone, forms of one
take turns, and the least CPU time of any turn counts. Shapes between take the time of the nearest
one in proportion to their multiplications.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qcomp.passes.allocate.operator_times import FLOAT, INTEGERS, Operation, measured
from qcomp.way_costs import LatencyTable, machine_name

ROWS = (1, 8, 64, 512)
WIDTHS = (64, 256, 1024)
LARGE = (2048, 4096)
"""Widths with few rows alone."""

FORMS = (FLOAT, INTEGERS, *(f"{bits}/{block}" for bits in (2, 4, 8) for block in (16, 32, 64, 128)))
CONVOLUTIONS = ((3, 32), (16, 32), (32, 16), (64, 8), (64, 56), (128, 28), (256, 14), (512, 7))
"""Channels and sides, with as many channels again, kernels of 3 and 1."""


def operations() -> list[Operation]:
    found = [
        Operation("MatMul", (rows, k), (k, n), form)
        for rows in ROWS
        for k in (*WIDTHS, *(LARGE if rows == 1 else ()))
        for n in (*WIDTHS, *(LARGE if rows == 1 else ()))
        for form in FORMS
    ]
    for channels, side in CONVOLUTIONS:
        for kernel in (1, 3):
            for group in (1, channels):
                weight = (max(channels, 16) if group == 1 else channels, channels // group)
                options = (
                    ("strides", (1, 1)),
                    ("dilations", (1, 1)),
                    ("pads", (kernel // 2,) * 4),
                    ("group", (group,)),
                )
                shape = (1, channels, side, side)
                found += [
                    Operation("Conv", shape, (*weight, kernel, kernel), form, options)
                    for form in (FLOAT, INTEGERS)
                    if group == 1 or kernel > 1
                ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    seconds = measured(operations())
    rounded = {name: float(f"{time:.3g}") for name, time in seconds.items()}
    LatencyTable(rounded, machine_name(), nearest=True).write(parser.parse_args().file)


if __name__ == "__main__":
    main()
