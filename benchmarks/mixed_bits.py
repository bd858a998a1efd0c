"""Bits shared out by the allocator against the same bits for all; its table against measurement.

    python benchmarks/mixed_bits.py DIR [--models A,B] [--json FILE]

DIR holds models as ``quantize_tasks.py`` describes them. Sensitivities come from calibration rows,
everything else from rows that are held out. Weights are rounded to nearest in blocks of 16 to 128,
of convolutions with a scale a channel: what is compared is how bits are spent, not how weights are
rounded. For 2, 4 and 8 bits: the error of the outputs with these bits for all, and with as many
bytes shared out by the integer program. Then Spearman's correlation of the predicted and the
measured error, of 20 random allocations within 2 % of one size and of 20 across sizes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from quantize_tasks import read_tasks

import qcomp
from qcomp.execute import Session
from qcomp.ir.program import Program
from qcomp.passes.allocate.allocate_bits import uniform_choice
from qcomp.passes.allocate.measure_sensitivity import MeasureSensitivity, rounded
from qcomp.passes.allocate.solve import integer_program
from qcomp.passes.analyze.output_loss import distance, output_loss
from qcomp.passmanager import Context, Pipeline
from qcomp.sensitivity import BitChoice, Sensitivities

FRONT = (
    "freeze-defaults,canonicalise,inline-functions,widen-floats,take-apart,fold-constants,"
    "canonicalise,fuse-batch-norm"
)
RANDOM = 20
NEAR = 0.02

Feeds = dict[str, np.ndarray[Any, Any]]


class Mixed:
    """One model with its table of sensitivities.

    Args:
        program: In float, made ready for quantization.
        data: Calibration rows.
        held: Rows that the outputs are compared on.
        options: Of ``measure-sensitivity``.
    """

    def __init__(self, program: Program, data: Feeds, held: Feeds, **options: Any) -> None:
        self.program, self.held = program, held
        context = Context(calibration=lambda: iter([data]))
        self.pass_ = MeasureSensitivity(**options)
        self.pass_.run(program, context)
        found = context.get(Sensitivities)
        assert found is not None
        self.table = found
        self.places = self.pass_.places(program, context)
        self.losses = output_loss(program, "auto")
        self.real = Session(program.model).run(held)
        self.items = [[(float(c.bytes), c.error) for c in t.choices] for t in found.tensors]
        self.rounded = cache(self._rounded)

    def _rounded(self, tensor: int, way: int) -> ir.TensorProtocol:
        place = self.places[tensor]
        return ir.tensor(rounded(place, place.ways[way], self.pass_), name=place.weight.name)

    def measured(self, ways: Sequence[int]) -> float:
        """The error of the outputs with all tensors rounded."""
        model = self.program.model.clone()
        for tensor, way in enumerate(ways):
            name = self.places[tensor].weight.name or ""
            model.graph.initializers[name].const_value = self.rounded(tensor, way)
        return distance(self.losses, self.real, Session(model).run(self.held))

    def cost(self, ways: Sequence[int]) -> float:
        return sum(part[w][0] for part, w in zip(self.items, ways, strict=True))

    def predicted(self, ways: Sequence[int]) -> float:
        return sum(part[w][1] for part, w in zip(self.items, ways, strict=True))

    def uniform(self, bits: int) -> list[int]:
        """The ways with these bits for all; tables have no fewer than they can."""
        found = []
        for tensor in self.table.tensors:
            choices: list[BitChoice] = list(tensor.choices)
            found.append(choices.index(uniform_choice(tensor, bits)))
        return found

    def random(self, rng: np.random.Generator, size: float) -> list[int]:
        """A random allocation within 2 % of a size: tensors are drawn anew until it fits."""
        ways: list[int] = []
        for step in range(100_000):
            if step % 200 == 0:
                ways = [int(rng.integers(len(part))) for part in self.items]
            cost = self.cost(ways)
            if abs(cost - size) <= NEAR * size:
                return ways
            tensor = int(rng.integers(len(ways)))
            way = int(rng.integers(len(self.items[tensor])))
            change = self.items[tensor][way][0] - self.items[tensor][ways[tensor]][0]
            if abs(cost + change - size) < abs(cost - size):
                ways[tensor] = way
        raise SystemExit("no allocation of that size was found")

    def against_uniform(self) -> list[dict[str, float]]:
        """For each number of bits, what is measured uniform and shared out at the same bytes."""
        lines = []
        for bits in sorted({c.bits for t in self.table.tensors for c in t.choices}):
            same = self.uniform(bits)
            mixed = integer_program(self.items, max_cost=self.cost(same))
            lines.append(
                {
                    "bits": bits,
                    "bytes": self.cost(same),
                    "uniform": self.measured(same),
                    "mixed": self.measured(mixed),
                }
            )
        return lines

    def correlations(self, seed: int = 0) -> tuple[float, float]:
        """Spearman's, of random allocations of one size, and across sizes."""
        rng = np.random.default_rng(seed)
        size = self.cost(self.uniform(4))
        low = sum(min(c for c, _ in part) for part in self.items) / (1 - NEAR)
        high = sum(max(c for c, _ in part) for part in self.items) / (1 + NEAR)
        sizes = [[size] * RANDOM, list(np.geomspace(low, high, RANDOM))]
        found = []
        for wanted in sizes:
            drawn = [self.random(rng, one) for one in wanted]
            pairs = [(self.predicted(ways), self.measured(ways)) for ways in drawn]
            found.append(spearman(*np.array(pairs).T))
        return found[0], found[1]


def spearman(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    """Rank correlation of numbers without ties."""
    return float(np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="models with their data")
    parser.add_argument("--models", default="", help="names, with commas; all by default")
    parser.add_argument("--rows", type=int, default=16, help="held-out rows")
    parser.add_argument("--json", type=Path, help="where figures go")
    options = parser.parse_args()
    names = tuple(name for name in options.models.split(",") if name)
    rows = {}
    for task in read_tasks(options.folder, names, options.rows):
        program = qcomp.read(task.onnx)
        Pipeline.parse(FRONT).run(program, Context())
        made = Mixed(program, task.calibration, task.evaluation, convolutions=True, rows=16)
        lines, (same, across) = made.against_uniform(), made.correlations()
        rows[task.name] = {"lines": lines, "one size": same, "across sizes": across}
        for line in lines:
            print(
                f"{task.name} {line['bits']:.0f} bits, {line['bytes']:.0f} bytes: "
                f"{line['uniform']:.3g} -> {line['mixed']:.3g}"
            )
        print(f"{task.name} Spearman {same:.3f} at one size, {across:.3f} across sizes", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
