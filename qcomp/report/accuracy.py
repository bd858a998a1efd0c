"""Lines of the report about figures on labelled samples."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AccuracyLine", "BoundLine", "KeptLine"]


@dataclass(frozen=True, slots=True)
class AccuracyLine:
    """A figure of merit before and after, on labelled samples; an accuracy is in [0, 1]."""

    metric: str
    source: float
    compiled: float
    samples: int


@dataclass(frozen=True, slots=True)
class KeptLine:
    """One layer that stayed in float to meet a largest drop.

    Attributes:
        layer: Its name.
        op: Its operator type.
        sqnr: SQNR of the outputs in dB where it alone is quantized.
    """

    layer: str
    op: str
    sqnr: float


@dataclass(frozen=True, slots=True)
class BoundLine:
    """What a largest drop cost.

    Attributes:
        drop: The drop that was asked for, as text.
        metric: The figure.
        source: Of the source.
        quantized: With all layers quantized.
        reached: As written.
        kept: Layers in float, the worst first.
        layers: Layers with weights that could be quantized.
        trials: Ways to compile that were judged.
        bytes_quantized: Bytes of the weights with all layers quantized.
        bytes_reached: The same as written.
        time_quantized: Least CPU time of a small batch over the source's, all layers quantized;
            None if not measured.
        time_reached: The same as written.
    """

    drop: str
    metric: str
    source: float
    quantized: float
    reached: float
    kept: tuple[KeptLine, ...] = ()
    layers: int = 0
    trials: int = 0
    bytes_quantized: int = 0
    bytes_reached: int = 0
    time_quantized: float | None = None
    time_reached: float | None = None

    @property
    def sentence(self) -> str:
        """What was kept and what it cost, in plain words."""
        if not self.kept:
            return f"{self.metric} gets worse by at most {self.drop} with all layers quantized"
        text = (
            f"{len(self.kept)} of {self.layers} layers stay in float so that {self.metric} gets "
            f"worse by at most {self.drop}: {self.quantized:.4g} with all quantized, "
            f"{self.reached:.4g} now, {self.source:.4g} in float; weights "
            f"{self.bytes_reached / 1e6:.3g} MB in place of {self.bytes_quantized / 1e6:.3g} MB"
        )
        if self.time_reached is not None and self.time_quantized is not None:
            text += (
                f"; time {self.time_reached:.2f} of float's in place of {self.time_quantized:.2f}"
            )
        return text
