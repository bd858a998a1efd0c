"""The ledger of graphs: what passes promised, what a table predicted, what was spent."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import qcomp
from qcomp.budget import NOISE, Ledger
from qcomp.errors import PassError
from qcomp.passmanager import Context, GraphPass, Guarantee, Pipeline, run_pass
from qcomp.registry import load, names
from tests.allocate.test_bits import after, small


@dataclass(frozen=True)
class Shrink(GraphPass):
    """Makes one weight smaller; promises less than that costs."""

    name: ClassVar[str] = "shrink"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN
    error_share: ClassVar[float] = 1e-3
    by: float = 0.5

    def run(self, program, context):
        import onnx_ir as ir

        value = program.model.graph.initializers["head"]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1 - self.by))
        return True


def checked(instance, calibrated=True):
    program, data = small()
    context = Context(calibration=(lambda: iter([data])) if calibrated else None, verify_each=True)
    return run_pass(instance, program, context, []), context


def test_checked_mode_refuses_a_pass_that_spends_more_than_its_share():
    with pytest.raises(PassError, match=r"'shrink' spent 0\.25 noise over signal") as caught:
        checked(Shrink())
    assert "had promised 0.001" in caught.value.what
    assert "larger share" in caught.value.hint


def test_a_pass_within_its_share_is_entered_with_what_was_measured():
    record, context = checked(Shrink(by=0.01))
    (entry,) = context.ledger.entries
    assert (entry.spender, entry.promised, entry.measure) == ("shrink", 1e-3, NOISE)
    assert entry.spent == entry.measured == pytest.approx(1e-4, rel=1e-3)
    assert "0.0001 noise over signal" in record.check


def test_nothing_is_held_to_inputs_that_are_made_up():
    record, context = checked(Shrink(), calibrated=False)
    assert "made-up inputs" in record.check
    assert context.ledger.entries == []


def test_no_number_is_more_than_any_share():
    with pytest.raises(PassError, match="spent nan"):
        Ledger().spend("a pass", 1.0, float("nan"), NOISE)


def test_every_graph_pass_that_approximates_asks_for_a_share():
    kinds = [load("passes", name) for name in names("passes")]
    approximate = [k for k in kinds if issubclass(k, GraphPass) and k.preserves is Guarantee.WITHIN]
    assert len(approximate) >= 15
    assert all(0 < kind.error_share <= 1 for kind in approximate)


TEXT = (
    "measure-sensitivity,allocate-bits{LIMIT},quantize-embeddings,"
    "quantize-weights{bits=4,group=32,symmetric=false,method=lsq},quantization-error"
)


def test_what_bits_were_shared_out_for_stands_beside_what_was_measured():
    program, data = small()
    context = after(TEXT.replace("LIMIT", "max-error=0.02"), program, data)
    (entry,) = [e for e in context.ledger.entries if e.spender == "allocate-bits"]
    assert (entry.promised, entry.measure) == (0.02, "nats")
    assert 0.01 < entry.predicted <= 0.02
    assert entry.spent == pytest.approx(entry.predicted)
    assert entry.predicted / 3 < entry.measured < 3 * entry.predicted


def test_checked_mode_refuses_bits_that_cost_more_than_the_limit_on_the_error():
    program, data = small()
    context = Context(calibration=lambda: iter([data]), verify_each=True)
    # Rows of the table that sensitivities are measured on are few: feedback that is not there
    # makes it say a tenth.
    text = TEXT.replace("sensitivity", "sensitivity{feedback=0.01}").replace(
        "LIMIT", "max-error=0.02"
    )
    with pytest.raises(PassError, match="'allocate-bits' spent"):
        Pipeline.parse(text).run(program, context)


def test_the_report_shows_what_was_promised_predicted_spent_and_measured():
    program, data = small()
    artifact = qcomp.compile(
        program,
        target="cpu-mixed",
        calibration={"ids": np.tile(data["ids"], (4, 1))},
        max_bytes="30kB",
        verify_each=True,
    )
    (line,) = [x for x in artifact.report["budget"] if x["spender"] == "allocate-bits"]
    assert line["predicted"] > 0
    assert line["measured"] > 0
    spenders = {x["spender"] for x in artifact.report["budget"]}
    assert {"quantize-weights", "quantization-error"} <= spenders
    page = (artifact.path / "report.html").read_text()
    assert '<th class="n">predicted</th>' in page
