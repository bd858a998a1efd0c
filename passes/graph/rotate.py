"""Rotations folded into weights: outliers of single channels spread over all, the function stays.

    x R in place of the residual stream x:  E R,  W_out R,  R^T diag(g) W_in,  R^T diag(g) W_head

for the tables E, the products W_out that are added to the stream, the products W_in behind its
normalizations (gains g and biases go into them) and the head; R = D H / sqrt(n) with random signs D
(:mod:`qcomp.passes.graph.hadamard`), since rms(x R) = rms(x). A LayerNormalization stays one: R is
chosen with R 1 = 1, so the mean of x R is that of x and nothing has to be centred. Between an
attention's values and its output projection each head turns by a matrix of its own size,

    softmax(q k') (v H) (H^T W_o) = softmax(q k') v W_o

``online=true`` multiplies what a down-projection reads by H while the graph runs, H^T goes into its
weight. H = H_a (x) H_b with a b = K is two products of K (a + b) multiplications a row, not K^2.
Share of a float down-projection's time with N = K / 4, one thread of ONNX Runtime (``whole``: one
product with H; ``butterflies``: log2 K steps of Split, Add, Sub, Concat):

    K, rows          256, 1   256, 64   1024, 1   1024, 64   4096, 1   4096, 64
    H_a (x) H_b        1.3      1.2        .4        .35       .05       .12
    whole              1.3      3.2       2.8       4.0       6.9       3.8
    butterflies        3.8      6.5       1.8       1.6        .14       .42

``keys=true`` turns queries and keys alike, behind rotary positions, where a cache would hold them.

What cannot turn is named in a warning and stays as it is; a table that was a matrix too and no
longer is one is named with its bytes. The outputs are compared on calibration data, made up where
there is none: a difference above 1e-4, or 1e-5 of the largest value if that is more, is an error.

Preconditions: ``fold-constants`` and ``take-apart`` ran; before ``calibrate``.
Preserved: the function, up to float32 rounding of the weights; products are taken in float64.
Cost: about 2 n sqrt(n) multiplications a row of each weight; two runs of the model on 4 samples.
Source: Ashkboos et al. 2024, arXiv:2404.00456, section 4 (R 1 = 1 is ours, in place of the centring
of arXiv:2401.15024).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcomp.passes.graph.hadamard import Rotation, has_hadamard, no_size
from qcomp.passes.graph.same_outputs import check_same_outputs
from qcomp.passes.graph.turning import Draw, Draws, Turner
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["Rotate", "Rotated"]


@dataclass(frozen=True, slots=True)
class Rotated:
    """What turned: a second run leaves it alone.

    Attributes:
        done: ``stream`` with the name of a normalization, ``head``, ``online`` or ``keys`` of a
            product.
    """

    done: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Rotate(GraphPass):
    """Turn the residual stream and the heads' values by Hadamard matrices, folded into weights.

    Attributes:
        stream: Whether the residual stream turns.
        heads: Whether values and output projections turn, head by head.
        online: Whether what down-projections read turns while the graph runs.
        keys: Whether queries and keys turn while the graph runs.
    """

    name: ClassVar[str] = "rotate"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    stream: bool = True
    heads: bool = True
    online: bool = False
    keys: bool = False

    def run(self, program: Program, context: Context) -> bool:
        """Turn what can turn; return whether anything did.

        Raises:
            PassError: The outputs changed by more than rounding.
            UsageError: Calibration data that does not fit the model.
        """
        before = program.copy()
        known = context.get(Rotated)
        done = set() if known is None else set(known.done)
        draws = self.draws(program, context, done)
        work = Turner(program.model, context, done, self.name)
        if not self.turn(work, draws):
            return False
        work.finish()
        hint = (
            f"leave {self.name} out of the pipeline, or some of it: '{self.name}{{stream=false}}'"
        )
        check_same_outputs(self.name, before, program, context, hint)
        context.put(Rotated(frozenset(work.done)))
        return True

    def draws(self, program: Program, context: Context, done: Collection[tuple[str, str]]) -> Draws:
        """Hadamard matrices; streams and heads draw signs of their own, whatever else turns."""

        def drawing(rng: np.random.Generator) -> Draw:
            def draw(what: str, n: int, keeps_ones: bool) -> Rotation | None:
                if has_hadamard(n):
                    return Rotation.random(n, rng, keeps_ones=keeps_ones)
                context.warn(f"{self.name}: {no_size(what, n)}")
                return None

            return draw

        def plain(what: str, n: int, keeps_ones: bool) -> Rotation | None:
            if has_hadamard(n):
                return Rotation(np.ones(n))
            context.warn(f"{self.name}: {no_size(what, n)}")
            return None

        stream, heads = (drawing(context.rng(f"rotate.{name}")) for name in ("stream", "heads"))
        return Draws(stream, heads, plain)

    def turn(self, work: Turner, draws: Draws) -> bool:
        """Turn what the options say; return whether anything did."""
        changed = self.stream and work.turn_stream(draws.stream)
        changed |= self.heads and work.turn_heads(draws.heads)
        changed |= self.online and work.turn_online(draws.online)
        return changed | (self.keys and work.turn_keys(draws.online))
