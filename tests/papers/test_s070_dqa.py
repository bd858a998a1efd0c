"""S070: Hu et al. 2024, "DQA: An Efficient Method for Deep Quantization of Deep Neural Network
Activations", arXiv:2412.09687.

Four digits CNNs with activations of 3, 4 and 5 bits, weights in float, through ONNX Runtime, beside
direct rounding of all channels on the same grid. Only the abstract and a summary of the paper could
be read. Levels are signed: on unsigned ones, which networks of ReLU can have, direct rounding to 3
bits loses nothing here. Coded tensors come back bit for bit, and x^ is what the graph reads.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import onnx_ir as ir
import pytest

from qcomp.backends.onnx_int import OnnxIntBackend
from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passes.quantize.activation_codec import code_lengths, codecs_of
from qcomp.passes.quantize.dqa import CodedActivations, Dqa
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import QuantizationRecord
from qcomp.target import get_target
from tests.models import from_text
from tests.papers.digits_cnn import cnn, images
from tests.papers.digits_mlp import digits

SEEDS = range(4)

pytest.importorskip("torch")
pytest.importorskip("sklearn")


def stored(seed, options):
    """A digits CNN behind the pass, with what the pass leaves."""
    x, _, _, _ = digits()
    program = Program(ir.from_proto(cnn(seed)))
    context = Context(calibration=lambda: iter([{"x": images(x)}]))
    text = "" if options is None else f",dqa{{{options}}}"
    Pipeline.parse(f"canonicalise,fold-constants{text}").run(program, context)
    return program, context


@functools.cache
def answers(options):
    """Classes of the test images by four nets, int64[4, 719], and bits a value."""
    _, x_test, _, _ = digits()
    found, bits = [], []
    for seed in SEEDS:
        program, context = stored(seed, options)
        found.append(HybridSession(program).run({"x": images(x_test)})["y"].argmax(axis=1))
        coded = context.get(CodedActivations)
        bits.append(32.0 if coded is None else coded.bits_a_value)
    return np.stack(found), float(np.mean(bits))


def right(options):
    """Percent of right answers."""
    return 100 * (answers(options)[0] == digits()[3]).mean()


def same(options):
    """Percent of answers that are the float nets'."""
    return 100 * (answers(options)[0] == answers(None)[0]).mean()


def test_three_four_and_five_bits_keep_more_answers_than_direct_rounding_and_three_a_point_more():
    one_answer = 100 / answers(None)[0].size
    for bits in (3, 4, 5):
        direct, dqa = f"bits={bits},symmetric=true,share=0", f"bits={bits},symmetric=true"
        used = answers(dqa)[1]
        print(
            f"A{bits}: right {right(direct):.2f} direct, {right(dqa):.2f} DQA, {right(None):.2f} "
            f"float; as float {same(direct):.2f}, {same(dqa):.2f}; {used:.2f} bits a value"
        )
        assert answers(direct)[1] == bits
        assert bits < used < bits + 0.75 * 2  # Huffman codes of two bits, three quarters of values
        assert same(dqa) > same(direct)
        # Behind 5 bits both are as right as float, up to a single one of 2876 answers.
        assert right(dqa) >= right(direct) + (1.0 if bits == 3 else -1.01 * one_answer)


def test_coded_activations_come_back_bit_for_bit_and_are_what_the_layers_read(tmp_path):
    _, x_test, _, _ = digits()
    program, context = stored(0, "bits=3,extra=3")
    OnnxIntBackend().write(program, tmp_path / "model.onnx", get_target("cpu-int8"), context)
    model = ir.load(tmp_path / "model.onnx")
    codecs = codecs_of(model)
    assert codecs == context.get(CodedActivations).codecs
    assert sorted(codecs) == ["f", "p1", "r0"]
    parts = ("stored", "shift_error", "levels", "decoded")
    taps = [f"{name}_{part}" for name in codecs for part in parts]
    found = HybridSession(Program(model), taps=taps).run({"x": images(x_test)})
    for name, codec in codecs.items():
        hi, error, levels, real = (found[f"{name}_{part}"] for part in parts)
        data = codec.encode(hi, error)
        again = codec.decode(data, hi.shape)
        assert np.array_equal(again[0], hi)
        assert np.array_equal(again[1], error)
        assert np.array_equal(codec.levels(*again), levels)
        assert np.array_equal(codec.real(levels), real)
        assert len(codec.important) == round(0.75 * codec.channels)
        assert 8 * len(data) / hi.size == pytest.approx(codec.bits_a_value, rel=0.01)
    reasons = {op.node: op.reason for op in context.get(QuantizationRecord).float_ops}
    assert "stored in 3 bits" in reasons["c1"]
    assert "comes into the graph as it is" in reasons["c0"]


def test_code_words_are_as_short_as_can_be():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 4):
        counts = rng.integers(1, 50, size)
        best = min(
            counts @ lengths
            for lengths in itertools.product(range(4), repeat=size)
            if sum(2.0**-n for n in lengths) <= 1
        )
        assert counts @ code_lengths(counts) == best
    counts = np.array([900, 400, 200, 100, 50, 20, 9, 0])
    lengths = np.array(code_lengths(counts))
    assert sum(2.0**-lengths) == 1
    assert lengths.tolist() == [1, 2, 3, 4, 5, 6, 7, 7]


def wide(channels=8, opset=21):
    """A product whose channel 5 has weights ten times as large."""
    rng = np.random.default_rng(1)
    w = rng.normal(size=(channels, 4)).astype(np.float32)
    w[5] *= 10
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]>
    g (float[n, {channels}] x) => (float[n, 4] y) {{ h = Tanh(x) y = MatMul(h, w) }}"""
    data = {"x": rng.normal(size=(64, channels)).astype(np.float32)}
    return Program(ir.from_proto(from_text(text, w=w))), data


def test_channels_whose_errors_reach_the_outputs_are_the_important_ones():
    program, data = wide()
    before = HybridSession(program).run(data)["y"]
    errors = {}
    for share in (0.0, 0.125, 0.5):
        program, data = wide()
        context = Context(calibration=lambda data=data: iter([data]))
        assert Dqa(share=share).run(program, context)
        after = HybridSession(program).run(data)["y"]
        errors[share] = float(((after - before) ** 2).sum())
    assert context.get(CodedActivations).codecs["h"].important[0] == 5
    assert errors[0.125] < errors[0.0] / 3
    assert errors[0.5] < errors[0.125]


def test_bad_options_data_and_bytes_are_one_error_each():
    for options in ({"bits": 1}, {"bits": 6, "extra": 3}, {"extra": 0}, {"share": 1.5}):
        with pytest.raises(UsageError, match="dqa: "):
            Dqa(**options)
    program, data = wide()
    with pytest.raises(PassError, match="no calibration data"):
        Dqa().run(program, Context())
    old, _ = wide(opset=17)
    with pytest.raises(PassError, match="opset 17, at least 18"):
        Dqa().run(old, Context(calibration=lambda: iter([data])))
    context = Context(calibration=lambda: iter([data]))
    assert Dqa().run(program, context)
    codec = context.get(CodedActivations).codecs["h"]
    hi = np.full((16, 8), 15, np.uint8)
    error = np.zeros_like(hi)
    error[:, codec.important[0]] = 3
    coded = codec.encode(hi, error)
    for bytes_left in (20, 65):
        with pytest.raises(UsageError, match="ends too early"):
            codec.decode(coded[:bytes_left], hi.shape)
    with pytest.raises(UsageError, match="no 8 channels"):
        codec.decode(coded, (8, 16))
    for wrong in ((hi + 1, error), (hi, error + 3), (hi, np.ones_like(hi))):
        with pytest.raises(UsageError, match="no levels of 4 bits"):
            codec.encode(*wrong)


def test_a_graph_whose_layers_read_inputs_alone_says_so():
    program = Program(
        ir.from_proto(
            from_text(
                """<ir_version: 10, opset_import: ["" : 21]>
                g (float[n, 4] x) => (float[n, 2] y) { y = MatMul(x, w) }""",
                w=np.ones((4, 2), np.float32),
            )
        )
    )
    context = Context()
    assert not Dqa().run(program, context)
    assert "comes into the graph as it is" in context.warnings[0]
