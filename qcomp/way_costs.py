"""What ways to store a tensor cost beside bytes, and ``--max-latency-ratio``, a limit on time.

    minimise  sum_l error(l, c_l)   subject to   sum_l (time(l, c_l) - time(l, float)) <= (R - 1) T

T is the time of the float graph. Times of single operators add up; what stands between them is
taken to take as long as before.

Source: additive tables of measured latencies, Cai et al. 2019 (ProxylessNAS), arXiv:1812.00332;
in an integer program over bits, Yao et al. 2021 (HAWQ-V3), arXiv:2011.10680, section 3.4.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from qcomp.atomic import atomic_file
from qcomp.errors import UsageError

__all__ = ["SHIPPED", "LatencyBudget", "LatencyTable", "WayCosts", "machine_name", "user_table"]

SHIPPED = "shipped"
"""The word for the table that comes with the target."""


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Measured times of operators on one sample.

    Attributes:
        seconds: Name of an operator with its shapes and its form -> CPU seconds of one run.
        machine: The processor they were measured on.
        nearest: Whether another shape takes the time of the nearest one there is, in proportion to
            its multiplications.
    """

    seconds: Mapping[str, float]
    machine: str
    nearest: bool = False

    @staticmethod
    def read(path: Path) -> LatencyTable:
        """Read a table.

        Raises:
            UsageError: If the file is none.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            seconds = {str(name): float(time) for name, time in found["seconds"].items()}
            table = LatencyTable(seconds, str(found["machine"]), bool(found.get("nearest")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"'{path}' is no table of latencies",
                why=f"{type(error).__name__}: {error}",
                hint='{"machine": NAME, "seconds": {"MatMul 1x64 by 64x64 as float": 1e-5, ...}}; '
                "a file that is not there is measured and written",
            ) from error
        if any(not math.isfinite(time) or time < 0 for time in seconds.values()):
            raise UsageError(f"'{path}' has times that are no positive numbers of seconds")
        return table

    def write(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        found = {"machine": self.machine, "nearest": self.nearest, "seconds": dict(self.seconds)}
        with atomic_file(path) as scratch:
            scratch.write_text(json.dumps(found, indent=0, sort_keys=True), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class LatencyBudget:
    """The most time of a compiled graph.

    Attributes:
        ratio: Over that of the source in float, on one sample.
        table: Times in place of measurement.
        path: Where measured times are kept, and looked for.
    """

    ratio: float
    table: LatencyTable | None = None
    path: Path | None = None

    @staticmethod
    def parse(ratio: object, latencies: object = None) -> LatencyBudget:
        """Read what the user gave.

        Args:
            ratio: A number above 0, such as ``0.7``, or ``70%``.
            latencies: A file of times, measured and written where it is not there; ``shipped`` for
                the table that comes with the target; None: measured, and kept for the user.

        Raises:
            UsageError: If either cannot be read.
        """
        text = str(ratio).strip()
        try:
            number = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
        except ValueError:
            number = math.nan
        if isinstance(ratio, bool) or not math.isfinite(number) or number <= 0:
            raise UsageError(
                f"'{ratio}' is no ratio of latencies",
                hint="0.7, or 70%: of the float graph's time on one sample",
            )
        if latencies is None:
            return LatencyBudget(number, None, user_table())
        if str(latencies) == SHIPPED:
            return LatencyBudget(number, _shipped())
        path = Path(str(latencies))
        if path.exists():
            return LatencyBudget(number, LatencyTable.read(path))
        if not path.absolute().parent.is_dir():
            raise UsageError(
                f"there is no folder '{path.absolute().parent}' to write latencies to",
                hint="name a file in a folder that is there",
            )
        return LatencyBudget(number, None, path)

    def __str__(self) -> str:
        """Return the limit in words."""
        return f"a latency of at most {self.ratio:g} of float's"


@dataclass(frozen=True, slots=True)
class WayCosts:
    """Costs of every choice of every tensor beside bytes.

    Attributes:
        operations: Tensor -> bit operations of a sample for each of its choices.
        seconds: Tensor -> CPU seconds of its operators for each of its choices; empty where time
            was not asked for.
        real: Tensor -> CPU seconds of its operators in float.
        whole: CPU seconds of the float graph.
        machine: Where the times are from.
    """

    operations: Mapping[str, tuple[float, ...]]
    seconds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    real: Mapping[str, float] = field(default_factory=dict)
    whole: float = 0.0
    machine: str = ""

    def ratios(self, tensor: str) -> tuple[float, ...]:
        """What each choice of a tensor adds to the ratio of the graph's time over float's."""
        return tuple((t - self.real[tensor]) / self.whole for t in self.seconds[tensor])


@cache
def machine_name() -> str:
    """The processor, by its name where the system tells it, and the runtime's version."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:  # another system: its own name of the processor stays
        pass
    return f"{name}, onnxruntime {version('onnxruntime')}"


def user_table() -> Path:
    """Where times that were measured on this machine are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "qcomp" / "latencies.json"


@cache
def _shipped() -> LatencyTable:
    place = files("qcomp").joinpath("targets", "latencies.json")
    return LatencyTable.read(Path(str(place)))
