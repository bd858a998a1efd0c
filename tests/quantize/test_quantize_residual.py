"""A weight as a sum of low-bit terms."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.quantize.quantize_residual import QuantizeResidual, residual_terms
from qcomp.passmanager import Context
from qcomp.quantization import QuantizationRecord, ResidualTerms, sqnr


def total(terms, shape, axis):
    W = np.zeros(shape)
    for term in terms:
        column = [1] * len(shape)
        column[axis] = -1
        part = term.levels.astype(np.float64) * term.scale.reshape(column)
        where = [slice(None)] * len(shape)
        where[axis] = slice(None) if term.channels is None else term.channels
        W[tuple(where)] += part
    return W


@pytest.mark.parametrize(("shape", "axis"), [((6, 5), 0), ((5, 6), 1), ((6, 2, 3, 3), 0)])
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_terms_sum_to_the_weight_within_the_error_they_tell(rng, shape, axis, keep):
    W = rng.normal(0, 1, shape).astype(np.float32)
    for order in (1, 2, 4):
        terms = residual_terms(W, axis, 3, order, keep)
        assert len(terms) == order
        error = np.abs(W - total(terms, shape, axis)).max() / np.abs(W).max()
        assert error == pytest.approx(terms[-1].error, rel=1e-3, abs=1e-7)
    assert all(np.abs(term.levels).max() <= 3 for term in terms)


def test_the_rows_of_the_largest_error_are_kept_and_zero_rows_are_no_harm():
    W = np.array([[1.0, 0.5], [1.0, 1.0], [0.0, 0.0], [3.0, 1.4]], np.float32)
    terms = residual_terms(W, 0, 2, 2, 0.25)
    assert terms[1].channels.tolist() == [3]
    assert np.isfinite(total(terms, W.shape, 0)).all()


def test_an_exact_weight_ends_the_expansion():
    W = np.array([[1.0, -1.0], [0.5, 0.0]], np.float32)
    assert len(residual_terms(W, 0, 2, 4, 1.0)) == 1


@pytest.mark.parametrize("keep", [1.0, 0.5])
@pytest.mark.parametrize("opset", [13, 21])
def test_branches_of_every_operator_sum_to_nearly_the_float_result(build, run, rng, keep, opset):
    program = build(
        """
        g (float[n, 4, 8, 8] x) => (float[n, 5] y, float[n, 16, 6] z) {
            c = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r = Relu(c)
            d = Conv<group=6>(r, w2)
            p = MaxPool<kernel_shape=[6,6]>(d)
            f = Flatten(p)
            y = Gemm<transB=1>(f, w3, b3)
            t = Reshape(x, shape)
            z = MatMul(t, w4)
        }""",
        {
            "w1": rng.normal(0, 0.3, (6, 4, 3, 3)).astype(np.float32),
            "b1": rng.normal(0, 0.3, 6).astype(np.float32),
            "w2": rng.normal(0, 0.3, (6, 1, 3, 3)).astype(np.float32),
            "w3": rng.normal(0, 0.3, (5, 6)).astype(np.float32),
            "b3": rng.normal(0, 0.3, 5).astype(np.float32),
            "w4": rng.normal(0, 0.3, (16, 6)).astype(np.float32),
            "shape": np.array([0, -1, 16], np.int64),
        },
        opset,
    )
    feeds = {"x": rng.normal(0, 1, (3, 4, 8, 8)).astype(np.float32)}
    before = run(program, feeds)
    context = Context()
    assert QuantizeResidual(order=3, bits=4, keep=keep).run(program, context)
    after = run(program, feeds)
    for name in ("y", "z"):
        assert sqnr(before[name], after[name]) > (60.0 if keep == 1.0 else 18.0)
    assert set(context.need(ResidualTerms, "").errors) == {"c", "d", "y", "z"}
    reasons = {op.node: op.reason for op in context.need(QuantizationRecord, "").float_ops}
    assert "a sum of 3 s4 terms" in reasons["c"]
    kinds = {v.dtype.name for v in program.model.graph.initializers.values()}
    assert ("INT4" in kinds) == (opset == 21)
    assert not QuantizeResidual(order=3, bits=4, keep=keep).run(program, Context())


@pytest.mark.parametrize(
    "options", [{"order": 0}, {"bits": 1}, {"bits": 9}, {"keep": 0.0}, {"store": "disk"}]
)
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError):
        QuantizeResidual(**options)


def test_operators_are_excluded_and_take_bits_of_their_own(mlp, compiled):
    select = 'select-nodes{exclude=[a],override=["y{bits=2}"]}'
    context = compiled(mlp, f"{select},quantize-residual{{bits=4,order=1}}")
    ((name, errors),) = context.need(ResidualTerms, "").errors.items()
    assert name == "y"
    assert errors[0] == pytest.approx(1 / 3, rel=0.1)
    reasons = {op.node: op.reason for op in context.need(QuantizationRecord, "").float_ops}
    assert "excluded" in reasons["a"]


def test_bits_that_no_term_can_have_are_refused(mlp, compiled):
    with pytest.raises(UsageError, match="'y' in 12 bits"):
        compiled(mlp, 'select-nodes{override=["y{bits=12}"]},quantize-residual')
