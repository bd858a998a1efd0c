"""``--max-bytes`` and ``--max-drop`` where a pipeline shares bits out: which budget meets them.

What stands before ``allocate-bits`` runs once; the rest runs for each budget that is tried.

* Bytes: the tensors may have what the limit leaves beside all else in the file. What the file has
  more than was counted on (shapes, names) is taken off, and it is written again.
* A drop: the figure on the labelled samples is taken to fall with the bytes. Budgets are halved in
  between the fewest and the most bytes, on a scale of logarithms: the smallest file that meets the
  drop is kept. It is the allocator's table that says how bits are spent at each; the figure judges.
* ``--max-latency-ratio`` is a further limit of the allocator at each budget; the fewest bytes are
  those that keep to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcomp.angle_limits import JointPipeline
from qcomp.byte_budget import ByteBudget, TensorBudget
from qcomp.errors import PassError, UsageError
from qcomp.joint_budget import run_jointly
from qcomp.latency_limit import with_costs
from qcomp.loop_bodies import run_passes
from qcomp.model_file import to_bytes
from qcomp.passmanager import Pipeline
from qcomp.sensitivity import AllocatedBits, Sensitivities
from qcomp.way_costs import LatencyBudget

if TYPE_CHECKING:
    from qcomp.compilation import Compilation
    from qcomp.feeds import Score
    from qcomp.ir.program import Program
    from qcomp.largest_drop import Drop
    from qcomp.passmanager import Context, Observer, PassRecord

__all__ = ["Allotted", "Allotter", "run_in_bits", "shares_bits"]

_FREE = re.compile(r"allocate-bits(\{(?P<options>[^}]*)\})?")
_TRIES = 4
_HALVINGS = 7


def shares_bits(text: str) -> bool:
    """Whether a pipeline has an ``allocate-bits`` without a budget of its own."""
    found = _FREE.search(text)
    return found is not None and "max" not in (found["options"] or "")


@dataclass(slots=True)
class Allotted:
    """What came of one budget.

    Attributes:
        program: Compiled.
        context: Its facts.
        records: The passes behind the sensitivities.
        bytes: Of its file.
        budget: Of the tensors.
    """

    program: Program
    context: Context
    records: list[PassRecord]
    bytes: int
    budget: int


class Allotter:
    """Runs a pipeline up to the sensitivities once, and what follows for any budget.

    Args:
        program: The source, which is not changed.
        context: Of the compile, which is not changed.
        text: The pipeline.
        observer: Called after each pass of the first part.

    Raises:
        PassError: No sensitivities were found: there is no data, or nothing has a choice.
    """

    def __init__(
        self, program: Program, context: Context, text: str, observer: Observer | None = None
    ) -> None:
        place = text.index("allocate-bits")
        self._rest = text[place:]
        self._program, self._context = program.copy(), context.branch()
        before = text[:place].strip().removesuffix(",")
        self.records = run_passes(self._program, before, self._context, observer)
        table = self._context.get(Sensitivities)
        if table is None or not table.tensors:
            raise PassError(
                "there are no sensitivities to share bits out by",
                why="there is no calibration data, or no tensor that could have fewer bits",
                hint="give calibration data: --calib data.npz, or --calib generated",
            )
        self.table = table
        from qcomp.passes.allocate.limits import fewest_bytes

        self.least = fewest_bytes(table, self._context)
        best = [min(t.choices, key=lambda c: (c.error, c.bytes)) for t in table.tensors]
        self.most = max(self.least, sum(choice.bytes for choice in best))

    def with_tensors(self, budget: int) -> Allotted:
        """Compile with so many bytes for all tensors that have a choice."""
        program, context = self._program.copy(), self._context.branch()
        context.put(TensorBudget(max(self.least, min(budget, self.most))))
        records = Pipeline.parse(self._rest).run(program, context)
        return Allotted(program, context, records, len(to_bytes(program.model)), budget)

    def below(self, limit: ByteBudget) -> Allotted:
        """Compile to a file of at most so many bytes.

        Raises:
            PassError: Not even the fewest bits are few enough; says the nearest.
        """
        budget = limit.bytes
        for _ in range(_TRIES):
            found = self.with_tensors(budget)
            spent = found.context.need(AllocatedBits, "allocate-bits").bytes
            if found.bytes <= limit.bytes and (spent >= self.most or budget < limit.bytes):
                return found
            beside = found.bytes - spent
            if spent <= self.least and found.bytes > limit.bytes:
                raise self._too_few(limit, found.bytes, beside)
            budget = limit.bytes - beside
        if found.bytes > limit.bytes:
            found = self.with_tensors(budget - (found.bytes - limit.bytes))
        return found

    def _too_few(self, limit: ByteBudget, least: int, beside: int) -> PassError:
        """No file is so small: the nearest that is, and the front behind it."""
        from qcomp.passes.allocate.limits import front_words

        latency = self._context.get(LatencyBudget)
        items = [[(float(c.bytes), c.error) for c in t.choices] for t in self.table.tensors]
        front = front_words(items, self.table.unit, lambda b: f"{b + beside:,.0f} bytes")
        if latency is None:
            return PassError(
                f"{limit} cannot be met",
                why=f"with the fewest bits of every tensor the graph has {least:,} bytes",
                hint=f"allow {least:,}; {front}",
            )
        return PassError(
            f"{limit} and {latency} contradict one another",
            why=f"the smallest graph within that time has {least:,} bytes",
            hint=f"allow {least:,} bytes, or more time; {front}",
        )


def run_in_bits(job: Compilation, text: str, observer: Observer | None) -> bool:
    """Run the graph's pipeline of a compile under the limits that the user gave, if there are any.

    Args:
        job: The compile: its program, context and records become those that were found.
        text: The pipeline.
        observer: Called after each pass up to the sensitivities.

    Returns:
        False where there is no limit that bits are shared out by.

    Raises:
        UsageError: A limit on bytes for a pipeline that shares no bits out.
        PassError: The limits cannot be met, or contradict one another.
    """
    limit, latency = job.context.get(ByteBudget), job.context.get(LatencyBudget)
    joint = job.context.get(JointPipeline)
    if joint is not None and latency is not None:
        raise UsageError(
            "a limit on latency is for a graph alone: the machine of the circuits sets their time",
            hint="leave --max-latency-ratio out, or compile the graph by itself",
        )
    if joint is not None and not shares_bits(text):
        raise UsageError(
            "one drop for bytes and T gates needs a graph's target that shares bits out",
            hint="take -t cpu-mixed+clifford+t, or limit the circuits by themselves: "
            "--max-observable-error 0.05",
        )
    if not shares_bits(text):
        if limit is not None or latency is not None:
            what = "bytes" if limit is not None else "a latency"
            raise UsageError(
                f"the pipeline shares no bits out, so that {what} cannot be kept to",
                hint="take -t cpu-mixed, or give a pipeline with measure-sensitivity,allocate-bits",
            )
        return False
    if limit is None and job.drop is None and latency is None:
        return False
    made = Allotter(job.program, job.context, with_costs(text, job.context), observer)
    if job.drop is None:
        found = made.with_tensors(made.most) if limit is None else made.below(limit)
    else:
        found = (
            _smallest(job, made, job.drop)
            if joint is None
            else run_jointly(job, made, job.drop, joint.rest)
        )
        if limit is not None and found.bytes > limit.bytes:
            raise PassError(
                f"{limit} and a drop of at most {job.drop} contradict one another",
                why=f"the smallest graph that was found within the drop has {found.bytes:,} bytes",
                hint=f"allow {found.bytes:,} bytes, or a larger drop",
            )
    job.program, job.context = found.program, found.context
    job.records += made.records + found.records
    return True


def _smallest(job: Compilation, made: Allotter, drop: Drop) -> Allotted:
    """The smallest of the budgets that were tried within the drop."""
    from qcomp.accuracy_bound import score_of
    from qcomp.execute import HybridSession

    source = score_of(job, job.source_session())
    allowed = drop.allowed(source)
    lost: dict[int, float] = {}

    def meets(found: Allotted) -> bool:
        score: Score = score_of(job, HybridSession(found.program))
        lost[found.bytes] = drop.of(source, score)
        return lost[found.bytes] <= allowed

    best = made.with_tensors(made.most)
    if not meets(best):
        front = "; ".join(f"{size:,} bytes: {change:.4g}" for size, change in sorted(lost.items()))
        raise PassError(
            f"a drop of at most {drop} in {source.metric} cannot be met by bits alone",
            why=f"allowed is {allowed:.4g}, with the most bits it is {front}",
            hint="allow a larger drop, or keep layers in float: -t cpu-int8 --max-drop",
        )
    return _halved(made, best, meets)


def _halved(made: Allotter, best: Allotted, meets: Callable[[Allotted], bool]) -> Allotted:
    low, high = math.log(made.least), math.log(made.most)
    first = made.with_tensors(made.least)
    if meets(first):
        return first
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = made.with_tensors(int(math.exp(middle)))
        if meets(found):
            best, high = found, middle
        else:
            low = middle
    return best
