"""Sensitivities by the model's output, and bits for each tensor under one budget."""

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.execute import Session
from qcomp.passes.allocate.measure_sensitivity import MeasureSensitivity, rounded
from qcomp.passes.analyze.output_loss import OutputLoss, output_loss
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import QuantizationRecord, rules_of
from qcomp.sensitivity import AllocatedBits, Sensitivities
from tests.quantize.conftest import build_program

NETWORK = """
g (int64[n, 12] ids) => (float[n, 12, 96] logits) {
    e = Gather(table, ids)
    h = LayerNormalization<axis=-1>(e, gain)
    a = MatMul(h, w0)
    u = Gelu(a)
    b = MatMul(u, w1)
    r = Add(e, b)
    c = Relu(r)
    logits = MatMul(c, head)
}"""
SHAPES = {"table": (96, 64), "w0": (64, 128), "w1": (128, 64), "head": (64, 96)}


def small(seed=3, opset=21):
    rng = np.random.default_rng(seed)
    weights = {n: rng.normal(0, 0.2, s).astype(np.float32) for n, s in SHAPES.items()}
    weights["w1"] *= 3.0
    weights["head"] *= 0.3
    weights["gain"] = np.ones(64, np.float32)
    return build_program(NETWORK, weights, opset), {"ids": rng.integers(0, 96, (6, 12))}


def after(text, program, data):
    context = Context(calibration=None if data is None else lambda: iter([data]))
    Pipeline.parse(text).run(program, context)
    return context


def logarithms(z):
    z = z.astype(np.float64)
    return (
        z
        - z.max(-1, keepdims=True)
        - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True))
    )


def test_the_error_is_the_divergence_of_the_graph_with_that_weight_rounded():
    program, data = small()
    options = "measured=all,bits=[2,4,8],groups=[32,16],rows=6"
    context = after(f"measure-sensitivity{{{options}}}", program, data)
    table = context.get(Sensitivities)
    assert (table.unit, table.samples, table.data) == ("nats", 6, "calibration")
    assert [t.weight for t in table.tensors] == list(SHAPES)
    real = logarithms(Session(program.model).run(data)["logits"])
    instance = MeasureSensitivity(measured="all", groups=(32, 16), rows=6)
    for place, tensor in zip(instance.places(program, context), table.tensors, strict=True):
        for way, choice in zip(place.ways, tensor.choices, strict=True):
            other = program.copy()
            value = other.model.graph.initializers[tensor.weight]
            value.const_value = ir.tensor(rounded(place, way, instance), name=tensor.weight)
            got = logarithms(Session(other.model).run(data)["logits"])
            wanted = float((np.exp(real) * (real - got)).sum(-1).mean())
            assert choice.error == pytest.approx(wanted, rel=2e-3, abs=1e-9)


def test_one_run_a_tensor_says_nearly_what_all_runs_say():
    program, data = small()
    every, one = (
        after(f"measure-sensitivity{{measured={word},bits=[4,8],rows=6}}", program, data)
        .get(Sensitivities)
        .tensors
        for word in ("all", "one")
    )
    for exact, near in zip(every, one, strict=True):
        for a, b in zip(exact.choices, near.choices, strict=True):
            assert b.error == pytest.approx(a.error, rel=0.6)


def test_convolutions_and_squared_error_are_measured_alike():
    rng = np.random.default_rng(1)
    body = """
    g (float[n, 4, 9, 9] x) => (float[n, 5] y) {
        a = Conv<pads=[1,1,1,1], strides=[2,2], group=2>(x, w0, b0)
        r = Relu(a)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        y = Gemm<transB=1>(f, w1)
    }"""
    shapes = {"w0": (6, 2, 3, 3), "b0": (6,), "w1": (5, 6)}
    program = build_program(
        body, {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}
    )
    data = {"x": rng.normal(size=(7, 4, 9, 9)).astype(np.float32)}
    instance = MeasureSensitivity(measured="all", bits=(3, 8), form="static", rows=7)
    context = Context(calibration=lambda: iter([data]))
    instance.run(program, context)
    table = context.get(Sensitivities)
    assert table.unit == "noise over signal"
    real = Session(program.model).run(data)["y"]
    for place, tensor in zip(instance.places(program, context), table.tensors, strict=True):
        assert [c.group for c in tensor.choices] == [0, 0]
        for way, choice in zip(place.ways, tensor.choices, strict=True):
            other = program.copy()
            value = other.model.graph.initializers[tensor.weight]
            value.const_value = ir.tensor(rounded(place, way, instance), name=tensor.weight)
            moved = Session(other.model).run(data)["y"] - real
            assert choice.error == pytest.approx((moved**2).sum() / (real**2).sum(), rel=1e-3)


def test_small_divergences_keep_their_digits():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 4, (3, 5, 300)).astype(np.float32)
    step = rng.normal(size=a.shape)
    p = np.exp(logarithms(a))
    for size in (1.0, 1e-2, 1e-4):
        moved = (a + size * step).astype(np.float32)
        q, exact = logarithms(moved), logarithms(a)
        total, count = OutputLoss("y", "kl").of(a, moved)
        assert count == 15
        wanted = (p * (exact - q)).sum()
        assert total == pytest.approx(wanted, rel=2e-2 if size < 1e-3 else 1e-3)


def test_logits_are_known_by_their_vocabulary_and_probabilities_by_their_softmax():
    program, _ = small()
    (loss,) = output_loss(program, "auto")
    assert (loss.kind, loss.softmax) == ("kl", False)
    body = "g (float[n, 8] x) => (float[n, 8] y) { a = MatMul(x, w)\ny = Softmax(a) }"
    classes = build_program(body, {"w": np.eye(8, dtype=np.float32)})
    (loss,) = output_loss(classes, "auto")
    assert (loss.kind, loss.softmax) == ("kl", True)
    assert output_loss(classes, "squared")[0].kind == "squared"
    z = np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float32)
    probabilities = [np.exp(logarithms(part)).astype(np.float32) for part in z]
    as_logits = OutputLoss("y", "kl").of(*z)
    assert loss.of(*probabilities) == pytest.approx(as_logits, rel=1e-4)


STORE = "quantize-embeddings{least_rows=2},quantize-weights{symmetric=false%s}"


@pytest.mark.parametrize("form", ["matmulnbits", "int8"])
def test_the_bytes_of_the_table_are_those_of_the_file(form):
    bits = (2, 4, 8) if form == "matmulnbits" else (2, 3, 4, 8)
    for b in bits:
        for group in (16, 64):
            program, data = small()
            options = f"bits=[{b}],groups=[{group}],form={form},rows=1,needs_data=false"
            text = f"measure-sensitivity{{{options}}},allocate-bits{{max-bytes=100000}}"
            context = after(f"{text},{STORE % f',form={form}'}", program, data)
            tensors = context.get(Sensitivities).tensors
            layers = {line.weight: line for line in context.get(QuantizationRecord).layers}
            stored = {}
            for value in program.model.graph.initializers.values():
                for name in SHAPES:
                    if value.name.startswith(name) and value.const_value is not None:
                        stored[name] = stored.get(name, 0) + value.const_value.nbytes
            for tensor in tensors:
                if len(tensor.choices) != 1 or (b == 3 and tensor.weight == "table"):
                    continue
                (choice,) = tensor.choices
                assert layers[tensor.weight].weight_type.endswith((f"{b}/{group}", "s8/row"))
                # Shapes and halves of folded weights: a few numbers, shared by all of them.
                assert abs(stored[tensor.weight] - choice.bytes) <= 64, (tensor, form)


@pytest.mark.parametrize("method", ["program", "frontier", "convex", "water-filling"])
def test_bits_go_where_the_output_is_sensitive_and_the_file_keeps_the_budget(method):
    program, data = small()
    before = program.copy()
    measure = "measure-sensitivity{rows=6,groups=[32]}"
    text = f"{measure},allocate-bits{{max-ratio=1.25,method={method}}},gptq,{STORE % ''}"
    context = after(text, program, data)
    found = context.get(AllocatedBits)
    tensors = {t.weight: t for t in context.get(Sensitivities).tensors}
    assert found.bytes == sum(c.bytes for c in found.chosen.values()) <= found.max_bytes
    assert found.max_bytes == int(1.25 * found.uniform["4"][0])
    assert found.error < 0.7 * found.uniform["4"][1]
    steps = {
        name: next(c.error for c in t.choices if c.bits == 4) / t.size
        for name, t in tensors.items()
    }
    most, *_, least = sorted(SHAPES, key=lambda name: -steps[name])
    assert found.chosen[most].bits == 8
    assert found.chosen[least].bits < 8
    layers = {line.weight: line.weight_type for line in context.get(QuantizationRecord).layers}
    for name, choice in found.chosen.items():
        wanted = f"{choice.bits}/{choice.group}" if choice.group else "8/row"
        assert layers[name].endswith(wanted), (name, layers[name], choice)
    plain = before.copy()
    after(f"gptq,{STORE % ''}", plain, data)
    real = logarithms(Session(before.model).run(data)["logits"])
    mixed, same = (
        (np.exp(real) * (real - logarithms(Session(p.model).run(data)["logits"]))).sum(-1).mean()
        for p in (program, plain)
    )
    assert mixed < (0.7 if method in ("program", "frontier") else 0.9) * same


def test_a_bound_on_the_error_takes_the_fewest_bytes():
    program, data = small()
    text = "measure-sensitivity{rows=6},allocate-bits{max-error=%s%s}"
    found = {}
    for method in ("", ",method=frontier", ",method=convex", ",method=water-filling"):
        for bound in (5e-2, 2e-3):
            context = after(text % (bound, method), program.copy(), data)
            found[method, bound] = context.get(AllocatedBits)
            assert found[method, bound].error <= bound
    assert found["", 5e-2].bytes < found["", 2e-3].bytes
    assert found["", 5e-2].bytes <= found[",method=frontier", 5e-2].bytes
    assert found["", 5e-2].bytes <= found[",method=water-filling", 5e-2].bytes


def test_a_layer_that_the_user_gives_bits_keeps_them():
    program, data = small()
    select = 'select-nodes{override=["a{bits=8,group=128}"],exclude=["logits"]}'
    context = after(f"{select},measure-sensitivity,allocate-bits{{max-ratio=1.3}}", program, data)
    found = context.get(AllocatedBits)
    assert str(found.chosen["w0"]) == "8/128"
    assert "head" not in found.chosen
    (node,) = [n for n in program.model.graph if n.outputs[0].name == "a"]
    assert (rules_of(context).options(node).bits, rules_of(context).options(node).group) == (8, 128)


def test_what_error_feedback_leaves_counts_for_layers_and_not_for_tables():
    program, data = small()
    one, half = (
        after(f"measure-sensitivity{{feedback={share}}}", program, data).get(Sensitivities).tensors
        for share in (1.0, 0.5)
    )
    for a, b in zip(one, half, strict=True):
        times = 1.0 if a.weight == "table" else 0.5
        assert [times * c.error for c in a.choices] == pytest.approx([c.error for c in b.choices])


def test_without_data_nothing_is_chosen_unless_some_is_made():
    program, _ = small()
    with pytest.raises(PassError, match="no data to run the model on"):
        after("measure-sensitivity", program, None)
    text = "measure-sensitivity{needs_data=false},allocate-bits{needs_data=false}"
    assert after(text, program, None).get(AllocatedBits) is None
    context = after(f"generate-data{{samples=8}},{text}", program, None)
    assert context.get(Sensitivities).data == "generated"
    assert context.get(AllocatedBits) is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("measure-sensitivity{bits=[1,4]}", "bits are 2 to 8"),
        ("measure-sensitivity{groups=[48]}", "groups are some of"),
        ("measure-sensitivity{rows=0}", "rows is at least 1"),
        ("measure-sensitivity{feedback=0.0}", "feedback is above 0"),
        ("measure-sensitivity{measured=none}", "measured"),
        ("allocate-bits{max-bytes=10,max-error=0.1}", "takes one budget"),
        ("allocate-bits{max-error=-0.1}", "takes one budget"),
        ("allocate-bits{method=greedy}", "method"),
    ],
)
def test_options_outside_their_range_are_refused(text, why):
    with pytest.raises(UsageError, match=why):
        Pipeline.parse(text)


@pytest.mark.parametrize("method", ["program", "frontier", "convex", "water-filling"])
def test_a_budget_that_cannot_be_met_says_the_nearest(method):
    program, data = small()
    text = f"measure-sensitivity{{measured=one}},allocate-bits{{max-bytes=500,method={method}}}"
    with pytest.raises(PassError, match="cannot be met") as caught:
        after(text, program, data)
    assert caught.value.hint


def test_bits_need_sensitivities():
    program, data = small()
    with pytest.raises(PassError, match="no Sensitivities yet") as caught:
        after("allocate-bits{max-ratio=1.2}", program, data)
    assert "measure-sensitivity" in caught.value.hint
