"""What a user can ask of a run on a noisy machine."""

from __future__ import annotations

from dataclasses import dataclass

from qcomp.errors import UsageError, suggest
from qcomp.mitigation.extrapolation import METHODS, Method
from qcomp.mitigation.folding import METHODS as FOLDINGS
from qcomp.mitigation.folding import FoldMethod

__all__ = ["Mitigation"]


@dataclass(frozen=True, slots=True)
class Mitigation:
    """How the noise of a machine is made up for.

    Attributes:
        zne: The model of zero-noise extrapolation; None for none.
        scales: Its noise scales, at least 2.
        folding: How gates are folded to reach them.
        readout: Whether readout errors are corrected, by calibration with all zeros and all ones.
    """

    zne: Method | None = None
    scales: tuple[float, ...] = (1.0, 3.0, 5.0)
    folding: FoldMethod = "global"
    readout: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: If a method is unknown, or scales are too few.
        """
        if self.zne is not None and self.zne not in METHODS:
            raise UsageError(
                f"there is no extrapolation '{self.zne}'", hint=suggest(self.zne, METHODS)
            )
        if self.folding not in FOLDINGS:
            raise UsageError(
                f"there is no method '{self.folding}' of folding",
                hint=suggest(self.folding, FOLDINGS),
            )
        if len(set(self.scales)) < 2:
            raise UsageError("extrapolation needs at least 2 different noise scales")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self.zne is None and not self.readout
