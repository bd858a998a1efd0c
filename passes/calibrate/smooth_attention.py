"""SmoothAttention: outliers of keys move into the queries, so that keys fit into few bits.

    q k' = (q L) (k / L)',    L = diag(l),    l_i = max |k_i|^strength,    a head each

W_q and its bias take l, W_k and its bias 1 / l. Rotary positions turn pairs of channels into each
other, so both of a pair take the larger one,

    l_i = l_(i + d/2) = max(max |k_i|, max |k_(i + d/2)|)^strength

or neighbours where positions are interleaved. Keys are measured behind their positions, where a
cache would hold them. Heads that several queries share have one l. l has the geometric mean 1.

Found are attentions written out, with nothing but moves of axes, rotary positions and constant
factors between the projections and the product, and MultiHeadAttention (com.microsoft) and
Attention (opset 23) on 3 axes. Others are named in a warning with the reason. The outputs are
compared as ``rotate`` does.

Preconditions: calibration data; before any pass that chooses integers.
Preserved: the function, up to float32 rounding of the weights.
Cost: one run of the model over the data, one pass over the projections.
Source: Lin et al. 2024 (QServe), arXiv:2405.04532, section 4.2, equations 8 to 10, with strength
.5; Xiao et al. 2022, arXiv:2211.10438, for the form. The geometric mean is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, UsageError
from qcomp.passes.calibrate.attention_projections import KeyProjections, key_projections
from qcomp.passes.calibrate.batches import checked_batches
from qcomp.passes.graph.rewriting import Editor
from qcomp.passes.graph.same_outputs import check_same_outputs
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import rules_of

if TYPE_CHECKING:
    from qcomp.ir.program import Program

__all__ = ["SmoothAttention"]

Floats = npt.NDArray[np.float32]

_NAMED = 4


@dataclass(frozen=True, slots=True)
class SmoothedAttentions:
    """Attentions whose keys ``smooth-attention`` has smoothed, by name."""

    done: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SmoothAttention(GraphPass):
    """Move outliers of keys into the queries (SmoothAttention).

    Attributes:
        strength: Exponent of the largest magnitudes, 0 to 1.
        batch: Samples run at a time.
    """

    name: ClassVar[str] = "smooth-attention"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    strength: float = 0.5
    batch: int = 16

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if not 0.0 < self.strength <= 1.0 or self.batch < 1:
            wrong = f"batch is {self.batch}" if self.batch < 1 else f"strength is {self.strength}"
            raise UsageError(f"{self.name}: {wrong}", hint="strength in (0, 1], batch from 1 up")

    def run(self, program: Program, context: Context) -> bool:
        """Smooth the keys of all attentions that are found.

        Raises:
            PassError: No calibration data, or the outputs changed by more than rounding.
            UsageError: Data that does not fit the model.
        """
        if context.calibration is None:
            raise PassError(
                f"{self.name} has no data to measure keys on",
                hint="give calibration data (--calib data.npz)",
            )
        done = (context.get(SmoothedAttentions) or SmoothedAttentions()).done
        found, left = key_projections(program.model.graph, rules_of(context))
        found = [attention for attention in found if attention.name not in done]
        if left:
            shown = "; ".join(f"'{name}': {why}" for name, why in list(left.items())[:_NAMED])
            context.warn(f"{self.name}: keys of {len(left)} attentions stay as they are: {shown}")
        if not found:
            return False
        before = program.copy()
        peaks = self._peaks(program, found, context)
        editor = Editor(program.model)
        for attention in found:
            attention.divide(editor, attention.paired(peaks[attention.name]) ** self.strength)
        hint = f"leave {self.name} out of the pipeline, or exclude the attention"
        check_same_outputs(self.name, before, program, context, hint)
        names = done | {attention.name for attention in found}
        context.put(SmoothedAttentions(frozenset(names)))
        return True

    def _peaks(
        self, program: Program, found: list[KeyProjections], context: Context
    ) -> dict[str, Floats]:
        """Largest magnitude of each channel of each head, float32[heads, channels]."""
        from qcomp.execute import HybridSession

        assert context.calibration is not None
        taps = tuple(dict.fromkeys(attention.keys.name or "" for attention in found))
        session = HybridSession(program, taps=taps, only_taps=True)
        peaks = {attention.name: np.zeros(attention.shape, np.float32) for attention in found}
        for feeds in checked_batches(program.model, context.calibration(), self.batch):
            values = session.run(feeds, seed=context.seed)
            for attention in found:
                seen = attention.heads_of(values[attention.keys.name or ""])
                np.maximum(peaks[attention.name], seen, out=peaks[attention.name])
        return peaks
