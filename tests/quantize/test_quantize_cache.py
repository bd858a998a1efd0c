"""Keys and values of the past in integers: what comes in and goes out, and what it costs."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import qcomp
from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.errors import PassError, UsageError
from qcomp.execute import Session
from qcomp.ir.program import Program
from qcomp.passes.quantize.quantize_cache import QuantizeCache
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import QuantizationRecord, StoredCaches
from qcomp.target import get_target
from tests.models import from_text
from tests.papers.low_bit import char_model
from tests.quantize.test_quantize_tokens import rounded_cache

STEPS, TEXTS = 64, 16


@functools.cache
def texts() -> np.ndarray:
    """Held-out text, int64[16, 64]."""
    _, alphabet = char_model.load()
    return char_model.split(char_model.tokens(alphabet))[1][::12][:TEXTS, :STEPS]


def char_past() -> Program:
    """The character model with its past."""
    weights, _ = char_model.load()
    return Program(ir.from_proto(char_model.graph(weights, past=True)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The graph as it is written: in float (0), at 8 and at 4 bits."""
    folder, found = tmp_path_factory.mktemp("cache"), {}
    for bits in (0, 8, 4):
        program, context = char_past(), Context()
        text = f",quantize-cache{{bits={bits}}}" if bits else ""
        Pipeline.parse(f"canonicalise,fold-constants{text}").run(program, context)
        found[bits] = folder / f"{bits}.onnx"
        OnnxIntBackend().write(program, found[bits], get_target("cpu-int8"), context)
    return found


class Decoder:
    """A decoder that is run step by step."""

    def __init__(self, path, batch=TEXTS):
        self.session, self.past = Session(path), {}
        for value in onnx.load(path).graph.input[1:]:
            kind = value.type.tensor_type
            shape = [d.dim_value for d in kind.shape.dim]  # of those without a value: 0
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            self.past[value.name] = np.zeros((batch, *shape[1:]), dtype)

    def step(self, ids):
        """log-probabilities float64[batch, tokens, characters] behind further tokens."""
        found = self.session.run({"ids": ids, **self.past})
        y = found.pop("logits").astype(np.float64)
        self.past = {n.replace("present", "past_key_values"): a for n, a in found.items()}
        y -= y.max(axis=-1, keepdims=True)
        return y - np.log(np.exp(y).sum(axis=-1, keepdims=True))

    def bytes(self):
        """Of the cache, for a token of a text."""
        return sum(a.nbytes for a in self.past.values()) / self.past_length() / TEXTS

    def past_length(self):
        return next(iter(self.past.values())).shape[2]


def divergence(real, quantized):
    return float((np.exp(real) * (real - quantized)).sum(axis=-1).mean())


def on_the_same_text(files, bits):
    """KL(float || quantized) over 64 steps of one character, and the quantized decoder."""
    plain, small = Decoder(files[0]), Decoder(files[bits])
    found = []
    for t in range(STEPS):
        ids = texts()[:, t : t + 1]
        found.append(divergence(plain.step(ids), small.step(ids)))
    return float(np.mean(found)), small, plain


def on_its_own_text(files, bits):
    """The same over 64 characters that the quantized decoder chooses itself, behind 16 given."""
    plain, small = Decoder(files[0]), Decoder(files[bits])
    ids, found = texts()[:, :16], []
    for _ in range(STEPS):
        real, quantized = plain.step(ids), small.step(ids)
        found.append(divergence(real[:, -1], quantized[:, -1]))
        ids = quantized[:, -1:].argmax(axis=-1)
    return float(np.mean(found))


@pytest.mark.parametrize(("bits", "limit", "a_token"), [(8, 1e-4, 576), (4, 1e-2, 320)])
def test_64_steps_stay_close_to_the_float_graph_with_a_cache_of_few_bytes(
    files, bits, limit, a_token
):
    found, small, plain = on_the_same_text(files, bits)
    assert 0 < found <= limit
    assert 0 < on_its_own_text(files, bits) <= limit
    assert plain.bytes() == 2048
    assert small.bytes() == a_token == 2048 * bits // 32 + 4 * 4 * 4


@pytest.mark.parametrize("bits", [8, 4])
def test_what_came_in_goes_out_bit_for_bit_and_no_token_is_rounded_twice(files, bits):
    decoder = Decoder(files[bits])
    for start, stop in ((0, 5), (5, 6), (6, 20), (20, 21)):
        before = decoder.past
        decoder.step(texts()[:, start:stop])
        assert set(decoder.past) == set(before)
        for name, array in decoder.past.items():
            assert array.dtype == (np.uint8 if name.endswith(("key", "value")) else np.float16)
            assert array.shape[2] == stop
            assert array[:, :, :start].tobytes() == before[name].tobytes()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_text_gives_the_same_in_one_step_or_many(files, bits):
    ids = texts()[:, :24]
    whole = Decoder(files[bits]).step(ids)
    decoder = Decoder(files[bits])
    parts = [decoder.step(ids[:, a:b]) for a, b in ((0, 1), (1, 16), (16, 24))]
    # A last bit of a float product may turn over a single rounding.
    assert np.abs(whole - np.concatenate(parts, axis=1)).mean() <= 1e-3


TURNED = """<ir_version: 10, opset_import: ["" : 21]>
g (float[n, 2, t, 6] q, float[n, 2, t, 6] k, float[n, 2, 6, p] past)
=> (float[n, 2, t, s] scores, float[n, 2, 6, s] present, int64[4] shape, int64[1] width) {
    turned = Transpose<perm=[0, 1, 3, 2]>(k)
    present = Concat<axis=-1>(past, turned)
    scores = MatMul(q, present)
    shape = Shape(past)
    width = Shape<start=2, end=3>(past)
}"""


@pytest.mark.parametrize("bits", [8, 4])
def test_integers_are_those_of_the_reference_also_where_keys_are_kept_turned_over(run, rng, bits):
    program = Program(ir.from_proto(from_text(TURNED)))
    context = Context()
    assert QuantizeCache(bits=bits).run(program, context)
    onnx.checker.check_model(ir.to_proto(program.model), full_check=True)
    assert context.get(StoredCaches).tensors[0].bytes == 2 * (6 * bits // 8 + 4)
    q, k = (rng.normal(size=(3, 2, 4, 6)).astype(np.float32) for _ in "qk")
    old = {
        "past": rng.integers(0, 256, (3, 2, 6 * bits // 8, 5), np.uint8),
        "past_scale": rng.uniform(0.1, 1, (3, 2, 1, 5)).astype(np.float16),
        "past_offset": rng.normal(size=(3, 2, 1, 5)).astype(np.float16),
    }
    found = run(program, {"q": q, "k": k, **old})
    assert found["shape"].tolist() == [3, 2, 6, 5]
    assert found["width"].tolist() == [6]
    levels, real = rounded_cache(k.swapaxes(2, 3), bits, 2)
    if bits == 4:
        levels = levels[:, :, :3] | levels[:, :, 3:] << 4
    for name, array in old.items():
        assert np.array_equal(found[name.replace("past", "present")][..., :5], array)
    assert np.array_equal(found["present"][..., 5:], levels)
    was = old["past"]
    if bits == 4:
        was = np.concatenate([was & 15, was >> 4], axis=2)
    was = was * old["past_scale"].astype(np.float32) + old["past_offset"].astype(np.float32)
    np.testing.assert_allclose(
        found["scores"], q @ np.concatenate([was, real], 3), rtol=1e-5, atol=1e-5
    )


def test_a_second_run_leaves_the_graph_and_says_that_it_holds_integers(files):
    program = Program(ir.load(files[8]))
    context = Context()
    assert not QuantizeCache().run(program, context)
    assert "it holds integers already" in context.warnings[0]


def test_keys_and_values_from_integers_are_not_rounded_by_quantize_tokens(files):
    program, context = Program(ir.load(files[4])), Context()
    Pipeline.parse("canonicalise,quantize-tokens{kv=8}").run(program, context)
    reasons = {op.node: op.reason for op in context.get(QuantizationRecord).float_ops}
    assert "come from a cache of integers" in reasons["0.scores"]
    assert "come from a cache of integers" in reasons["1.mixed"]


def test_a_compiled_artifact_says_that_its_cache_was_not_compared(files, tmp_path):
    from qcomp import driver

    weights, _ = char_model.load()
    source, ids = tmp_path / "past.onnx", texts()[:4, :8]
    onnx.save(char_model.graph(weights, past=True), source)
    data = {"ids": ids, **Decoder(files[0], 4).past}
    np.savez(tmp_path / "data.npz", **data)
    np.savez(tmp_path / "labels.npz", labels=ids, **data)
    artifact = driver.compile(
        source,
        target="cpu-int8",
        out=tmp_path / "out",
        calibration=tmp_path / "data.npz",
        labels=tmp_path / "labels.npz",
        metric="perplexity",
        pipeline="canonicalise,quantize-tokens,quantize-cache",
    )
    checks = {check["what"]: check for check in artifact.report["checks"]}
    for what in ("the artifact's outputs against the float source's", "accuracy"):
        assert checks[what]["result"] == "not checked"
        assert "cache comes in and goes out in integers" in checks[what]["how"]
    feeds = {"ids": ids, **Decoder(files[8], 4).past}
    assert artifact.run(feeds)["present.1.value"].dtype == np.uint8


def refused(body, **weights):
    program, context = Program(ir.from_proto(from_text(body, **weights))), Context()
    assert not QuantizeCache(bits=4).run(program, context)
    return context


def test_a_graph_without_a_cache_says_what_to_export(mlp):
    context = Context()
    assert not QuantizeCache().run(mlp, context)
    assert "export the model with its past" in context.warnings[0]


def test_an_input_that_is_repeated_is_no_cache():
    context = refused(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[n, 2, p, 8] past) => (float[n, 2, s, 8] y) { y = Concat<axis=2>(past, past) }"""
    )
    assert "export the model with its past" in context.warnings[0]


def test_a_cache_inside_of_an_operator_stays_in_float_with_the_reason():
    rest = "float[n, 2, p, 8] k0, float[n, 2, p, 8] v0, int32[n] last, int32 total"
    context = refused(
        f"""<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
        g (float[n, t, 16] q, float[n, t, 16] k, float[n, t, 16] v, {rest})
        => (float[n, t, 16] y, float[n, 2, s, 8] k1, float[n, 2, s, 8] v1) {{
            y, k1, v1 = com.microsoft.GroupQueryAttention<num_heads=2, kv_num_heads=2>
                (q, k, v, k0, v0, last, total)
        }}"""
    )
    assert "joined inside of GroupQueryAttention" in context.warnings[0]
    assert "GroupQueryAttention" in context.get(QuantizationRecord).float_ops[0].op_type


@pytest.mark.parametrize(
    ("width", "more", "reason"),
    [(7, "", "odd (7)"), ("w", "", "not known"), (8, "z = Relu(past)", "read by Relu")],
)
def test_caches_that_do_not_fit_a_byte_or_are_read_elsewhere_stay_in_float(width, more, reason):
    out = f", float[n, 2, p, {width}] z" if more else ""
    context = refused(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[n, 2, t, {width}] k, float[n, 2, p, {width}] past)
        => (float[n, 2, s, {width}] present{out}) {{ present = Concat<axis=2>(past, k) {more} }}"""
    )
    assert reason in context.warnings[0]


def test_an_excluded_cache_stays_in_float(files):
    program, context = char_past(), Context()
    Pipeline.parse('select-nodes{exclude=["present.0.*"]},quantize-cache').run(program, context)
    assert [t.part for t in context.get(StoredCaches).tensors] == [
        "past_key_values.1.key",
        "past_key_values.1.value",
    ]
    reasons = {op.node: op.reason for op in context.get(QuantizationRecord).float_ops}
    assert "exclude" in reasons["present.0.key"]


def test_other_bits_and_old_opsets_are_one_error_each():
    with pytest.raises(UsageError, match="bits is 2"):
        QuantizeCache(bits=2)
    program = Program(ir.from_proto(from_text(TURNED.replace('"" : 21', '"" : 17'))))
    with pytest.raises(PassError, match="opset 17, at least 18"):
        QuantizeCache().run(program, Context())


LABELLED = "canonicalise,fold-constants,calibrate,quantize-static"


def labelled(tmp_path, pipeline, max_drop):
    ids = texts()[:4]
    return qcomp.compile(
        char_model.graph(char_model.load()[0], past=True),
        target="cpu-int8",
        pipeline=pipeline,
        calibration={"ids": ids},
        labels={"ids": ids[:, :-1], "labels": ids[:, 1:]},
        metric="perplexity",
        max_drop=max_drop,
        out=tmp_path / "out",
    )


def test_a_past_that_no_data_is_given_for_is_empty(tmp_path):
    """For calibration and for labels; nothing else is made up."""
    report = labelled(tmp_path, LABELLED, "50%").report
    assert report["accuracy"][0]["compiled"] < 1.5 * report["accuracy"][0]["source"]
    with pytest.raises(UsageError, match="no array for the model's input 'ids'"):
        qcomp.compile(
            char_model.graph(char_model.load()[0], past=True),
            target="cpu-int8",
            calibration={"past_key_values.0.key": np.zeros((4, 4, 3, 32), np.float32)},
        )


def test_a_largest_drop_is_refused_where_the_cache_is_in_integers(tmp_path):
    with pytest.raises(UsageError, match="the cache comes in and goes out in integers") as caught:
        labelled(tmp_path, f"{LABELLED},quantize-cache", "1%")
    assert "leave --max-drop or quantize-cache out" in caught.value.hint
    assert not (tmp_path / "out").exists()
