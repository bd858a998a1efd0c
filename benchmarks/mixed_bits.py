"""Bits shared out by the allocator against the same bits for all; its table against measurement.

    python benchmarks/mixed_bits.py DIR [--models A,B] [--rows 64] [--json FILE]

DIR holds models as ``quantize_tasks.py`` describes them; ``char`` is the decoder of the examples.
What stands in FILE already is not measured again. Sensitivities come from calibration rows,
everything else from rows that are held out. Weights are rounded to nearest in blocks of 16 to 128,
of convolutions with a scale a channel: what is compared is how bits are spent, not how weights are
rounded. For 2, 4 and 8 bits (3 where convolutions have them packed): the error of the outputs with
these bits for all, and with as many bytes shared out by the integer program. Then Spearman's
correlation of the predicted and the measured error, of 20 random allocations within 2 % of one size
(fewer where there are no more that differ) and of 20 across sizes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from quantize_tasks import Task, read_tasks
from scipy.stats import spearmanr

import qcomp
from qcomp.execute import Session
from qcomp.ir.program import Program
from qcomp.model_file import model_bytes
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
_LARGE = 1 << 22
"""Bytes of weights above which sensitivities are of 16 rows in place of 128."""

PARTS = ("one size", "across sizes")
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

    def random(self, rng: np.random.Generator, size: float) -> list[int] | None:
        """A random allocation within 2 % of a size: tensors are drawn anew until it fits."""
        ways: list[int] = []
        for step in range(20_000):
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
        return None

    def drawn(self, rng: np.random.Generator, sizes: Sequence[float]) -> list[list[int]]:
        """Random allocations of these sizes, one each, that all differ where that can be had."""
        found: list[list[int]] = []
        for size in sizes:
            for _ in range(50):
                ways = self.random(rng, size)
                if ways is not None and ways not in found:
                    found.append(ways)
                    break
        return found

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

    def correlation(self, part: str, seed: int = 0) -> tuple[float, int]:
        """Spearman's, of random allocations of ``one size`` or ``across sizes``, and how many."""
        rng = np.random.default_rng([seed, len(part)])
        low = sum(min(c for c, _ in part) for part in self.items) / (1 - NEAR)
        high = sum(max(c for c, _ in part) for part in self.items) / (1 + NEAR)
        same = [self.cost(self.uniform(4))] * RANDOM
        sizes = same if part == "one size" else list(np.geomspace(low, high, RANDOM))
        ways = self.drawn(rng, sizes)
        pairs = [(self.predicted(one), self.measured(one)) for one in ways]
        return float(spearmanr(*zip(*pairs, strict=True)).statistic), len(pairs)

    def correlations(self) -> tuple[float, float]:
        """Both."""
        return self.correlation("one size")[0], self.correlation("across sizes")[0]


def read(options: argparse.Namespace) -> list[tuple[str, Program, Feeds, Feeds]]:
    """Name, program, calibration and held-out rows of each model."""
    names = tuple(name for name in options.models.split(",") if name)
    tasks: list[Task] = []
    if names != ("char",):
        own = tuple(name for name in names if name != "char")
        tasks = read_tasks(options.folder, own, options.rows)
    found = [(t.name, qcomp.read(t.onnx), t.calibration, t.evaluation) for t in tasks]
    if not names or "char" in names:
        sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "char_model"))
        import char_model

        weights, alphabet = char_model.load()
        train, held = char_model.split(char_model.tokens(alphabet))
        data, rows = {"ids": char_model.calibration(train, 32)}, held[: options.rows, :-1]
        found.append(("char", qcomp.read(char_model.graph(weights)), data, {"ids": rows}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="models with their data")
    parser.add_argument("--models", default="", help="names, with commas; all by default")
    parser.add_argument("--rows", type=int, default=64, help="held-out rows")
    parser.add_argument("--json", type=Path, help="where figures go")
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())

    def keep() -> None:
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))

    for name, program, data, held in read(options):
        row = rows.setdefault(name, {})
        if {"lines", *PARTS} <= set(row):
            continue
        start = time.process_time()
        Pipeline.parse(FRONT).run(program, Context())
        few = 16 if model_bytes(program.model) > _LARGE else 128
        made = Mixed(program, data, held, convolutions=True, rows=few, bits=_bits(program))
        row.update(tensors=len(made.items), rows=options.rows)
        if "lines" not in row:
            row["lines"] = made.against_uniform()
            keep()
        for line in row["lines"]:
            print(
                f"{name} {line['bits']:.0f} bits, {line['bytes']:.0f} bytes: "
                f"{line['uniform']:.3g} -> {line['mixed']:.3g}",
                flush=True,
            )
        for part in PARTS:
            if part not in row:
                row[part], row[f"{part}, allocations"] = made.correlation(part)
                keep()
            print(f"{name} Spearman {part} {row[part]:.3f}", flush=True)
        row["CPU s"] = time.process_time() - start
        keep()


def _bits(program: Program) -> tuple[int, ...]:
    """3 bits are packed for convolutions alone; products would have 4 in the file."""
    is_conv = any(node.op_type == "Conv" for node in program.model.graph)
    return (2, 3, 4, 8) if is_conv else (2, 4, 8)


if __name__ == "__main__":
    main()
