"""QoQ: progressive group quantization, 4-bit weights that are 8-bit ones with one scale a channel.

    W[c, k] ~ S[c] (q[c, k] - z[c, j]) r[c, j],    r whole,    (q - z) r in [-128, 127]

(:mod:`qcomp.passes.quantize.progressive_grid`). The integers q are chosen by error feedback as
``gptq`` does, or rounded to nearest. ``quantize-tokens`` and ``quantize-weights{form=int8}`` store
q and z in 4 bits and r in 8, 4 + 12 / group bits a weight; ONNX Runtime multiplies when it loads
the graph, exactly, so that a product of W4A8 is one of 8-bit integers with a scale a channel.

    smooth-attention,rotate{online=true},qoq,quantize-tokens{kv=4}

is the paper's W4A8KV4. Its order of weights for a GPU's registers has no counterpart: ONNX Runtime
packs weights for its own kernels when it loads the graph. Input channels are not put in order of
their importance (the paper's section 4.3.3); error feedback counts importance.

Preconditions: calibration data; a pass behind it that stores blocks of 4 bits.
Preserved: everything; the graph does not change.
Cost: as ``gptq``, and 27 passes over the weights for the search of r and z.
Source: Lin et al. 2024 (QServe), arXiv:2405.04532, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import read_weight
from qcomp.passes.quantize.error_feedback.layerwise import Problem
from qcomp.passes.quantize.gptq import Gptq
from qcomp.passes.quantize.grids import Grid, Grids
from qcomp.passes.quantize.progressive_grid import ProgressiveGrid, channel_scale
from qcomp.passes.quantize.weights import float_weight
from qcomp.quantization import ChosenWeight, ChosenWeights

if TYPE_CHECKING:
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context

__all__ = ["Qoq"]

_FIXED = {"bits": 4, "symmetric": False, "scheme": "weights", "refits": 0}


@dataclass(frozen=True)
class Qoq(Gptq):
    """Choose 4-bit weights whose groups are whole multiples of an 8-bit channel (QServe).

    Attributes:
        feedback: Whether errors are fed back as GPTQ does; else weights are rounded to nearest.
    """

    name: ClassVar[str] = "qoq"
    static_groups: ClassVar[bool] = True

    group: int = 128
    refits: int = 0
    feedback: bool = True

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        super().__post_init__()
        for option, value in _FIXED.items():
            if getattr(self, option) != value:
                raise UsageError(
                    f"qoq: {option} is {getattr(self, option)}",
                    hint=f"its groups have {option}={value}; 'gptq' has others",
                )
        if self.fit not in ("minmax", "mse") or self.group < 1:
            wrong = f"group is {self.group}" if self.group < 1 else f"fit is '{self.fit}'"
            raise UsageError(f"qoq: {wrong}", hint="group is at least 1; fit is minmax or mse")

    def _grid(self, bits: int | None = None, group: int | None = None) -> Grid:
        if bits not in (None, 4):
            raise UsageError(
                f"qoq: a layer is to have {bits} bits", hint="4, or exclude it: 'gptq' has others"
            )
        return ProgressiveGrid(4, self.group if group is None else group, False, self.fit)

    def choose(self, problem: Problem) -> tuple[npt.NDArray[np.uint8], Grids, str]:
        """Round one matrix."""
        if self.feedback:
            return super().choose(problem)
        return problem.nearest.round(problem.weight), problem.nearest, ""

    def run(self, program: Program, context: Context) -> bool:
        """Choose integers; the program stays as it is.

        Raises:
            PassError: No calibration data, or a weight with NaN or infinity.
            UsageError: Data that does not fit the model.
        """
        super().run(program, context)
        chosen = context.get(ChosenWeights) or ChosenWeights()
        mine = {name: w for name, w in chosen.weights.items() if w.method == str(self)}
        found: dict[str, ChosenWeight] = {}
        for node in program.model.graph:
            value = node.inputs[1] if len(node.inputs) > 1 else None
            weight = None if value is None else mine.get(value.name or "")
            if value is None or weight is None:
                continue
            with read_weight(float_weight(value)) as array:
                channel = channel_scale(np.asarray(array, np.float32), weight.axis)
            found[value.name or ""] = replace(weight, channel=channel)
        context.put(chosen.joined(found))
        return False
