"""Calibration data for a model that comes without any.

* ``distill``: inputs whose channels have the means and deviations that the model's
  BatchNormalizations remember of the training (``distill.py``, ZeroQ). Needs PyTorch.
* ``sample``: inputs that look like the model's own: text that a language model draws itself, rows
  of tokens for encoders (``made_tokens.py``); images of dead leaves, of which those stay that make
  a classifier surest of each of its classes, and series (``made_images.py``).

``auto`` distills where it can. What was done is said in the report.

Preconditions: none; data that was given stays, and nothing is generated.
Preserved: everything; later passes find the data as if it had been given.
Cost: ``distill`` runs the model ``steps`` times forth and back, ``sample`` once over up to 16
times the rows, language models ``rounds`` times.
Source: Cai et al. 2020, arXiv:2001.00281; Liu et al. 2023, arXiv:2305.17888; Baradad et al. 2021,
arXiv:2106.05963.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError, QcompError, UsageError
from qcomp.feeds import calibration_batches, inputs_of
from qcomp.feeds.inputs import Conversion
from qcomp.passes.calibrate.made_images import SPREAD, made_images, made_series
from qcomp.passes.calibrate.made_inputs import MadeInput, made_inputs
from qcomp.passes.calibrate.made_tokens import FRAMES, draw_from_model, random_rows, row_lengths
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import GeneratedData

if TYPE_CHECKING:
    from qcomp.execute import HybridSession
    from qcomp.ir.program import Program

__all__ = ["GenerateData"]

Array = npt.NDArray[np.generic]

_CHOICE = 16
"""Images that are made for each one that stays; 2 where they are larger than 64 x 64."""

_BATCH = 32
"""Rows run at a time."""


@dataclass(frozen=True)
class GenerateData(GraphPass):
    """Make calibration data where none was given.

    Attributes:
        method: ``distill``, ``sample``, or ``auto``.
        samples: Rows to make; ``distill`` makes at most 32 images larger than 64 x 64.
        low: Least value of float inputs; with ``high``, what images and numbers are scaled to.
        high: Largest value of float inputs.
        steps: Steps of the search in ``distill``.
        rounds: Rounds in which a language model draws its text.
    """

    name: ClassVar[str] = "generate-data"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    method: Literal["auto", "distill", "sample"] = "auto"
    samples: int = 128
    low: float = -SPREAD
    high: float = SPREAD
    steps: int = 60
    rounds: int = 4

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option outside its range.
        """
        if self.method not in ("auto", "distill", "sample"):
            raise UsageError(
                f"there is no way '{self.method}' to generate data", hint="auto, distill or sample"
            )
        if min(self.samples, self.steps, self.rounds) < 1:
            raise UsageError("generate-data: samples, steps and rounds are at least 1")
        if not self.low < self.high or not np.isfinite([self.low, self.high]).all():
            raise UsageError(f"generate-data: low={self.low:g} is not below high={self.high:g}")

    def run(self, program: Program, context: Context) -> bool:
        """Put data into the context; the program stays as it is.

        Raises:
            UsageError: An input that nothing can be made up for; ``distill`` without
                BatchNormalization or PyTorch.
            PassError: The model does not run on what was made up.
        """
        if context.calibration is not None:
            return False
        from qcomp.execute import HybridSession

        inputs = made_inputs(program.model)
        rng = context.rng(self.name)
        made = None if self.method == "sample" else self._distilled(program, inputs, rng, context)
        session = HybridSession(program)
        try:
            feeds, how = made or self._sampled(program, inputs, session, rng)
            batches = calibration_batches(feeds, inputs_of(program.model), batch_size=_BATCH)
            session.run(next(iter(batches())), shots=0)
        except QcompError as error:
            raise PassError(
                "the model does not run on inputs that were made up for it",
                why=str(error.what),
                hint="give data: --calib data.npz",
            ) from error
        context.calibration = batches
        context.put(GeneratedData(batches.samples, how))
        ways = "; ".join(f"'{name}': {text}" for name, text in how.items())
        context.warn(
            f"no data was given: calibrated on {batches.samples} generated samples ({ways})"
        )
        return False

    def _sampled(
        self,
        program: Program,
        inputs: list[MadeInput],
        session: HybridSession,
        rng: np.random.Generator,
    ) -> tuple[dict[str, Array], dict[str, str]]:
        """Inputs that look like the model's own, and what each is in words."""
        tokens = next((made for made in inputs if made.role == "tokens"), None)
        length = 1 if tokens is None or not tokens.shape else tokens.shape[-1]
        masked = any(made.role == "mask" for made in inputs)
        fixed = Conversion(inputs_of(program.model)).fixed
        rows = self.samples if fixed is None else -(-self.samples // fixed) * fixed
        lengths = row_lengths(rows, length, rng) if masked else np.full(rows, length)
        feeds: dict[str, Array] = {}
        how: dict[str, str] = {}
        for made in inputs:
            feeds[made.name], how[made.name] = self._made(made, lengths, rng)
        if tokens is not None:
            drawn = draw_from_model(session, feeds, tokens, self.rounds, rng, fixed or 8)
            if drawn:
                how[tokens.name] = f"tokens below {tokens.bound}, {drawn}"
        images = [made for made in inputs if made.role == "image"]
        if len(inputs) == 1 and images:
            surest = self._surest(images[0], rows, fixed or _BATCH, session, rng)
            if surest is not None:
                feeds[images[0].name] = surest
                how[images[0].name] += ", those of which each class is surest"
        return feeds, how

    def _made(
        self, made: MadeInput, lengths: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[Array, str]:
        """The array of one input, and what it is in words."""
        rows = len(lengths) if made.sampled else 1
        x: Array
        if made.role == "tokens":
            x = random_rows(lengths, made.shape[-1] if made.shape else 1, made.bound, rng)
            x = x.reshape(rows, *made.shape)
            frame = f", framed by {FRAMES[made.bound][:2]}" if made.bound in FRAMES else ""
            how = f"random tokens below {made.bound}, frequent ones first{frame}"
        elif made.role == "segments":
            x, how = np.zeros((rows, *made.shape)), "zeros"
        elif made.role == "positions":
            count = made.shape[-1] if made.shape else 1
            x = np.broadcast_to(np.minimum(np.arange(count), made.bound - 1), (rows, *made.shape))
            how = "positions in order"
        elif made.role == "mask":
            x, how = np.ones((rows, *made.shape)), "ones"
            if made.sampled and made.shape and made.shape[-1] >= lengths.max() > lengths.min():
                shown = np.arange(made.shape[-1]) < lengths[:, None]
                x = x * shown.reshape(rows, *[1] * (len(made.shape) - 1), made.shape[-1])
                how = "ones, zeros behind each row"
        else:
            is_image = made.role == "image"
            x = self._images(made, rows, rng) if is_image else made_series(rows, made.shape, rng)
            x, how = self._scaled(x, made), "dead leaves images" if is_image else "noise"
            how += f" in [{self.low:g}, {self.high:g}]" if made.dtype.kind == "f" else ""
        x = np.ascontiguousarray(x.astype(made.dtype))
        return x if made.sampled else x[0], how

    def _scaled(self, x: npt.NDArray[np.float32], made: MadeInput) -> npt.NDArray[np.float32]:
        """Take [-SPREAD, SPREAD] to what the input takes."""
        low, high = (self.low, self.high) if made.dtype.kind == "f" else (0.0, 255.0)
        return low + (x + SPREAD) * ((high - low) / (2.0 * SPREAD))

    @staticmethod
    def _images(made: MadeInput, rows: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        if made.shape[2] <= 4 < made.shape[0]:
            height, width, channels = made.shape
            return made_images(rows, channels, height, width, rng).transpose(0, 2, 3, 1)
        channels, height, width = made.shape
        return made_images(rows, channels, height, width, rng)

    def _surest(
        self,
        made: MadeInput,
        rows: int,
        batch: int,
        session: HybridSession,
        rng: np.random.Generator,
    ) -> Array | None:
        """Of several times as many images, those with the largest outputs of each class."""
        if not made.sampled:
            return None
        kept: list[Array] = []
        scores: list[npt.NDArray[np.float32]] = []
        choice = _CHOICE if _is_small(made) else 2
        for _ in range(choice * -(-rows // batch)):
            x = self._scaled(self._images(made, batch, rng), made).astype(made.dtype)
            outputs = session.run({made.name: x}, shots=0)
            logits = np.asarray(next(iter(outputs.values())), np.float32)
            if logits.ndim != 2 or logits.shape[0] != batch or logits.shape[1] < 2:
                return None
            kept.append(x)
            scores.append(logits)
        ranks = np.argsort(-np.concatenate(scores), axis=0, kind="stable")
        # First the surest of every class, then the second of every class ...
        order = list(dict.fromkeys(ranks.reshape(-1).tolist()))[:rows]
        return np.ascontiguousarray(np.concatenate(kept)[np.sort(order)])

    def _distilled(
        self,
        program: Program,
        inputs: list[MadeInput],
        rng: np.random.Generator,
        context: Context,
    ) -> tuple[dict[str, Array], dict[str, str]] | None:
        """Distilled inputs; None where the method is ``auto`` and they cannot be had."""
        from qcomp.passes.calibrate.distill import Distillation, needed_nodes, remembered_moments
        from qcomp.passes.torch_graph import has_torch, import_torch, untranslated

        moments = remembered_moments(program.model, context)
        forced = self.method == "distill"
        if not moments:
            if forced:
                raise UsageError(
                    "the model has no BatchNormalization whose statistics inputs could match",
                    why="there is none, or the exporter has folded them into the weights",
                    hint="generate-data{method=sample}, or export the model in training mode off "
                    "with constant folding of the exporter off",
                )
            return None
        reason = ""
        if len(inputs) != 1 or inputs[0].dtype != np.float32 or not inputs[0].sampled:
            reason = "the model takes more than one float input"
        elif not has_torch():
            if forced:
                import_torch("generate-data{method=distill}")
            reason = "PyTorch is not installed (pip install 'qcomp[torch]')"
        else:
            missing = untranslated(needed_nodes(program.model, moments))
            if missing:
                reason = f"no gradient goes through {', '.join(missing)}"
        if reason:
            if forced:
                raise UsageError("inputs cannot be distilled for this model", why=reason)
            context.warn(f"inputs were not distilled from BatchNormalization: {reason}")
            return None
        made = inputs[0]
        search = Distillation(program.model, moments, self.steps)
        parts, first, last = [], 0.0, 0.0
        fixed = Conversion(inputs_of(program.model)).fixed
        size = fixed or min(_BATCH, self.samples)
        rows = self.samples if _is_small(made) else min(self.samples, _BATCH)
        for _ in range(-(-rows // size)):
            is_image = made.role == "image"
            x = self._images(made, size, rng) if is_image else made_series(size, made.shape, rng)
            try:
                part, begin, end = search.run(np.ascontiguousarray(x, np.float32), context)
            except PassError as error:
                if forced:
                    raise
                context.warn(f"inputs were not distilled from BatchNormalization: {error.what}")
                return None
            parts.append(part)
            first, last = first + begin, last + end
        x = np.concatenate(parts)
        count = len(parts)
        how = (
            f"distilled to the statistics of {len(moments)} normalizations in {self.steps} steps, "
            f"loss {first / count:.3g} -> {last / count:.3g}"
        )
        return {made.name: x if fixed else x[:rows]}, {made.name: how}


def _is_small(made: MadeInput) -> bool:
    """Whether a model runs on an input in little time: images of at most 64 x 64, or none."""
    return made.role != "image" or bool(np.prod(made.shape) <= 3 * 64 * 64)
