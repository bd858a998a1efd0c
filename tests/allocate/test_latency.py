"""``--max-latency-ratio``: bits by times of operators, given or measured."""

import itertools
import json

import numpy as np
import pytest

import qcomp
from qcomp.errors import PassError, UsageError
from qcomp.execute import Session
from qcomp.passes.allocate import measure_costs
from qcomp.passes.allocate.limits import limits_of
from qcomp.passes.allocate.operator_times import FLOAT, INTEGERS, Operation, measured
from qcomp.passes.allocate.solve import Limit, integer_program
from qcomp.passmanager import Context, Pipeline
from qcomp.sensitivity import AllocatedBits, Sensitivities
from qcomp.way_costs import LatencyBudget, LatencyTable, WayCosts, machine_name
from tests.allocate.test_bits import after, small

SHARES = {2: 1.3, 4: 0.8, 8: 0.5}
"""Time over float's of products in so many bits; blocks of 16 take a tenth more than of 128."""


def table():
    """Times of one shape, all others in proportion."""
    product = Operation("MatMul", (1, 64), (64, 64))
    seconds = {str(product): 1e-6, str(Operation("MatMul", (1, 64), (64, 64), INTEGERS)): 4e-7}
    for bits, share in SHARES.items():
        for index, block in enumerate((128, 64, 32, 16)):
            form = Operation("MatMul", (1, 64), (64, 64), f"{bits}/{block}")
            seconds[str(form)] = 1e-6 * share * (1 + index / 30)
    return LatencyTable(seconds, "a machine of the test", nearest=True)


def costed(ratio, text="measure-sensitivity{bits=[2,4,8]},measure-costs"):
    program, data = small()
    context = Context(calibration=lambda: iter([data]))
    context.put(LatencyBudget(ratio, table()))
    Pipeline.parse(text).run(program, context)
    return context, program


@pytest.fixture(scope="module")
def costs():
    return costed(0.7)[0]


@pytest.fixture
def shared_out(tmp_path, monkeypatch):
    """Compiles the small network within a ratio, times from the table above."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table().write(tmp_path / "times.json")
    program, data = small()

    def compiled(ratio, target="cpu-mixed", **options):
        return qcomp.compile(
            program.copy(),
            target=target,
            calibration={"ids": np.tile(data["ids"], (4, 1))},
            max_latency_ratio=ratio,
            **{"latencies": tmp_path / "times.json", "out": tmp_path / "out", **options},
        )

    return compiled


def test_times_of_choices_add_up_to_the_graph_and_tables_take_none(costs):
    found, tensors = costs.get(WayCosts), costs.get(Sensitivities).tensors
    # 12 rows of a sample; 64 x 128, 128 x 64 and 64 x 96 numbers.
    assert found.whole == pytest.approx(12 * 1e-6 * (2 + 2 + 1.5))
    assert found.machine == "a machine of the test"
    for tensor in tensors:
        ratios = found.ratios(tensor.weight)
        if tensor.weight == "table":
            assert set(ratios) == {0.0}
            continue
        share = found.real[tensor.weight] / found.whole
        for choice, ratio in zip(tensor.choices, ratios, strict=True):
            wide = {128: 0, 64: 1, 32: 2, 16: 3}[choice.group]
            assert ratio == pytest.approx(share * (SHARES[choice.bits] * (1 + wide / 30) - 1))


def test_operations_are_multiplications_times_the_bits_of_both(costs):
    found, tensors = costs.get(WayCosts), costs.get(Sensitivities).tensors
    (w0,) = [t for t in tensors if t.weight == "w0"]
    wanted = [12 * 64 * 128 * c.bits * 8 for c in w0.choices]
    assert list(found.operations["w0"]) == wanted


@pytest.mark.parametrize("ratio", [0.52, 0.6, 0.9])
def test_the_least_error_within_bytes_and_time_is_that_of_all_combinations(costs, ratio):
    tensors = [t for t in costs.get(Sensitivities).tensors if t.weight != "table"]
    found = costs.get(WayCosts)
    values = [found.ratios(t.weight) for t in tensors]
    items = [[(float(c.bytes), c.error) for c in t.choices] for t in tensors]
    most = sum(max(b for b, _ in part) for part in items) * 0.9
    ways = integer_program(items, max_cost=most, also=[Limit(values, ratio - 1, "latency")])
    best = np.inf
    for combination in itertools.product(*(range(len(part)) for part in items)):
        picked = [part[w] for part, w in zip(items, combination, strict=True)]
        time = sum(part[w] for part, w in zip(values, combination, strict=True))
        if sum(b for b, _ in picked) <= most and time <= ratio - 1:
            best = min(best, sum(e for _, e in picked))
    assert sum(part[w][1] for part, w in zip(items, ways, strict=True)) == pytest.approx(best)


def test_bit_operations_are_kept_to_as_well():
    text = "measure-sensitivity,measure-costs,allocate-bits{max-operations=0.6}"
    program, data = small()
    context = after(text, program, data)
    (share,) = context.get(AllocatedBits).predicted.values()
    assert 0.3 < share <= 0.6
    with pytest.raises(PassError, match="cannot be met") as caught:
        after(text.replace("0.6", "0.1"), program, data)
    assert "allow 0.25" in caught.value.hint


def test_the_artifact_keeps_to_the_ratio_and_its_report_has_both_figures(shared_out):
    for ratio in (0.55, "80%"):
        report = shared_out(ratio).report
        (line,) = [line for line in report["checks"] if line["what"] == "latency"]
        allowed = 0.8 if ratio == "80%" else ratio
        assert f"allowed {allowed:g}, predicted 0." in line["how"]
        assert "a machine of the test" in line["how"]
        predicted = float(line["how"].split("predicted ")[1].split(" ")[0])
        assert predicted <= allowed + 1e-9
        assert line["error"] > 0


def test_less_time_takes_more_bits_where_these_are_faster(shared_out):
    fast, small_one = shared_out(0.52, max_bytes="40kB"), shared_out(1.3, max_bytes="25kB")
    bits = [
        {
            layer["bits"].split("/")[0]
            for layer in one.report["quantization"]["layers"]
            if layer["op"] != "Gather"
        }
        for one in (fast, small_one)
    ]
    assert bits[0] == {"u8"}
    assert "u4" in bits[1]


def test_bytes_and_time_that_cannot_both_be_kept_to_say_the_nearest(shared_out, tmp_path):
    with pytest.raises(PassError, match="contradict one another") as caught:
        shared_out(0.52, max_bytes="20kB")
    assert "latency of at most 0.52" in caught.value.what
    assert "allow 29," in caught.value.hint
    assert "the front in nats" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_ratio_that_cannot_be_met_says_the_nearest_and_the_front(shared_out):
    with pytest.raises(PassError, match=r"at most 0\.2 cannot be met") as caught:
        shared_out(0.2)
    assert caught.value.hint.startswith("allow 0.5; the front in nats: 0.5: ")


def test_the_integer_program_says_which_of_two_limits_could_give_way(costs):
    items = [
        [(float(c.bytes), c.error) for c in t.choices] for t in costs.get(Sensitivities).tensors
    ]
    least = sum(min(b for b, _ in part) for part in items)
    with pytest.raises(PassError, match="contradict one another") as caught:
        integer_program(items, max_cost=least, also=limits_of(costs.get(Sensitivities), costs))
    assert caught.value.hint.startswith("allow 1.3")
    assert caught.value.hint.endswith("bytes")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ratio": "fast"}, "no ratio of latencies"),
        ({"ratio": 0}, "no ratio of latencies"),
        ({"ratio": "-20%"}, "no ratio of latencies"),
        ({"ratio": True}, "no ratio of latencies"),
        ({"ratio": None}, "a table of latencies is for a limit on latency"),
        ({"ratio": 0.7, "target": "cpu-int8"}, "shares no bits out, so that a latency"),
        ({"ratio": 0.7, "latencies": "nowhere/x.json"}, "no folder"),
        ({"ratio": 0.7, "max_drop": "1%"}, "needs labels"),
        ({"ratio": 0.7, "calibration": None}, "needs calibration data"),
    ],
)
def test_what_cannot_be_limited_is_one_error_with_the_next_step(shared_out, options, why):
    if "calibration" in options:
        with pytest.raises(UsageError, match=why) as caught:
            qcomp.compile(small()[0], target="cpu-mixed", max_latency_ratio=0.7)
    else:
        with pytest.raises(UsageError, match=why) as caught:
            shared_out(**options)
    assert caught.value.hint


def test_circuits_have_no_latency_to_limit():
    circuit = "OPENQASM 3.0; include 'stdgates.inc'; qubit[1] q; h q[0];"
    with pytest.raises(UsageError, match="the source has none"):
        qcomp.compile(circuit, target="portable", max_latency_ratio=0.5)


def test_methods_for_one_limit_refuse_a_second():
    text = "measure-sensitivity,measure-costs,allocate-bits{method=frontier}"
    with pytest.raises(UsageError, match="keeps to one limit"):
        costed(0.7, text)


def test_a_table_that_lacks_an_operator_names_it(shared_out, tmp_path):
    found = json.loads((tmp_path / "times.json").read_text())
    found["nearest"] = False
    (tmp_path / "times.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match="no time for 40 of 40 forms") as caught:
        shared_out(0.7)
    assert "MatMul 12x64 by 64x128 as" in caught.value.why


@pytest.mark.parametrize("text", ["[]", "{", '{"machine": "a"}', '{"seconds": {"a": "b"}}'])
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="no table of latencies"):
        LatencyBudget.parse(0.5, path)


def test_names_of_operators_are_read_back_and_the_nearest_shape_is_scaled():
    options = (("strides", (2, 2)), ("dilations", (1, 1)), ("pads", (1,) * 4), ("group", (1,)))
    conv = Operation("Conv", (1, 3, 9, 9), (8, 3, 3, 3), INTEGERS, options)
    near, far = (Operation("MatMul", (1, k), (k, 64), "4/32") for k in (64, 512))
    for operation in (conv, near, far):
        assert Operation.parse(str(operation)) == operation
    asked = Operation("MatMul", (1, 96), (96, 64), "4/32")
    assert asked.nearest([conv, far, near]) == near
    assert near.scaled(2.0, asked) == pytest.approx(3.0)
    assert asked.nearest([conv]) is None
    with pytest.raises(UsageError, match="no operator of a table"):
        Operation.parse("MatMul of two")


def test_multiplications_of_a_convolution_are_those_of_its_outputs():
    options = (("strides", (2, 1)), ("dilations", (1, 2)), ("pads", (1, 0, 1, 2)), ("group", (2,)))
    conv = Operation("Conv", (2, 4, 9, 11), (6, 2, 3, 3), FLOAT, options)
    model, feeds = conv.model()
    (out,) = Session(model).run(feeds).values()
    assert conv.multiplications == out.size * 2 * 3 * 3


def test_a_larger_product_is_measured_to_take_longer():
    little, large = (
        Operation("MatMul", (rows, width), (width, width), form)
        for rows, width, form in ((1, 16, FLOAT), (64, 512, "4/32"))
    )
    found = measured([little, large])
    assert 0 < 3 * found[str(little)] < found[str(large)]


def test_what_was_measured_is_kept_for_the_next_compile(shared_out, tmp_path, monkeypatch):
    path = tmp_path / "cache" / "qcomp" / "latencies.json"
    calls = []

    def count(operations):
        calls.append(len(operations))
        return {str(op): 1e-6 for op in operations}

    monkeypatch.setattr(measure_costs, "measured", count)
    first = shared_out(1e6, latencies=None)
    assert len(calls) == 3
    kept = LatencyTable.read(path)
    assert kept.machine == machine_name()
    assert any(name.startswith("source ") for name in kept.seconds)
    second = shared_out(1e6, latencies=None)
    assert len(calls) == 3
    files = [sorted(a.path.glob("*.onnx"))[0].read_bytes() for a in (first, second)]
    assert files[0] == files[1]
    LatencyTable(kept.seconds, "another machine").write(path)
    shared_out(1e6, latencies=None)
    assert len(calls) == 6


def test_the_table_that_comes_with_the_target_has_times_for_every_form(shared_out):
    budget = LatencyBudget.parse(1e6, "shipped")
    assert budget.table.nearest
    report = shared_out(1e6, latencies="shipped").report
    (line,) = [line for line in report["checks"] if line["what"] == "latency"]
    assert budget.table.machine in line["how"]
