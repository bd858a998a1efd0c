"""Sensitivities by second derivatives: against dense Hessians and measured errors."""

import numpy as np
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.passes.allocate.curvature import Curvature
from qcomp.passes.analyze.output_loss import output_loss
from qcomp.passmanager import Context, Pipeline
from qcomp.sensitivity import Sensitivities
from tests.quantize.conftest import build_program

pytest.importorskip("torch")

SHAPES = {"w0": (6, 9), "w1": (9, 7), "w2": (7, 5)}
BODY = """
g (float[n, 6] x) => (float[n, 5] y) {
    a = MatMul(x, w0)
    h = Tanh(a)
    b = MatMul(h, w1)
    i = Tanh(b)
    z = MatMul(i, w2)
    y = %s
}"""


def network(softmax, seed=0):
    rng = np.random.default_rng(seed)
    weights = {n: rng.normal(0, 0.6, s).astype(np.float32) for n, s in SHAPES.items()}
    data = {"x": rng.normal(size=(24, 6)).astype(np.float32)}
    last = "Softmax<axis=-1>(z)" if softmax else "Identity(z)"
    return build_program(BODY % last, weights), data


def curvature(softmax, asked="auto"):
    program, data = network(softmax)
    losses = output_loss(program, asked)
    weights = [program.model.graph.initializers[name] for name in SHAPES]
    return Curvature(program, weights, data, losses, np.random.default_rng(1))


def dense(made, name):
    size = int(np.prod(SHAPES[name]))
    columns = [
        made.product(name, np.eye(size)[i].reshape(SHAPES[name])).ravel() for i in range(size)
    ]
    return np.stack(columns)


LOSSES = pytest.mark.parametrize(
    ("softmax", "asked"), [(False, "auto"), (True, "auto"), (False, "kl")]
)


@LOSSES
def test_the_blocks_are_those_of_finite_differences(softmax, asked):
    """The loss itself, moved along two directions, has the second derivative <u, H v>."""
    program, data = network(softmax)
    made = curvature(softmax, asked)
    rng = np.random.default_rng(2)
    losses = output_loss(program, asked)

    def outputs(change):
        y = data["x"].astype(np.float64)
        for name in SHAPES:
            tensor = program.model.graph.initializers[name].const_value.numpy()
            w = tensor.astype(np.float64) + change.get(name, 0.0)
            y = y @ w
            if name != "w2":
                y = np.tanh(y)
        return y

    def loss(change):
        real, moved = outputs({}), outputs(change)
        if losses[0].kind == "squared":
            return ((moved - real) ** 2).sum() / (real**2).sum()
        p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (real, moved))
        return (p * np.log(p / q)).sum(-1).mean()

    for name, shape in SHAPES.items():
        v = rng.normal(size=shape)
        step = 1e-3
        second = (loss({name: step * v}) + loss({name: -step * v})) / step**2
        assert (v * made.product(name, v)).sum() == pytest.approx(second, rel=1e-3)


@LOSSES
def test_power_iteration_finds_the_largest_eigenvalue_of_the_dense_hessian(softmax, asked):
    made = curvature(softmax, asked)
    for name in SHAPES:
        top = np.linalg.eigvalsh(dense(made, name))[-1]
        assert made.eigenvalue(name, 100) == pytest.approx(top, rel=1e-2)


@LOSSES
def test_signs_estimate_the_trace_and_squared_gradients_the_diagonal(softmax, asked):
    made = curvature(softmax, asked)
    traces, diagonals = made.traces(400), made.squared_gradients(400)
    for name in SHAPES:
        diagonal = np.diag(dense(made, name))
        assert traces[name] == pytest.approx(diagonal.sum(), rel=0.1)
        assert diagonals[name].sum() == pytest.approx(diagonal.sum(), rel=0.1)
        assert np.corrcoef(diagonals[name].ravel(), diagonal)[0, 1] > 0.85


def table(text, program, data):
    context = Context(calibration=lambda: iter([data]))
    Pipeline.parse(text).run(program, context)
    return context.get(Sensitivities)


def test_all_methods_give_the_same_table_and_the_bound_lies_above():
    rng = np.random.default_rng(0)
    shapes = {"w0": (32, 48), "w1": (48, 40), "w2": (40, 5)}
    weights = {n: rng.normal(0, 0.2, s).astype(np.float32) for n, s in shapes.items()}
    body = BODY.replace("float[n, 6]", "float[n, 32]") % "Identity(z)"
    data = {"x": rng.normal(size=(64, 32)).astype(np.float32)}
    options = "bits=[4,8],groups=[16],rows=64"
    found = {
        text: table(f"{text},{options}}}", build_program(body, weights), data)
        for text in (
            "measure-sensitivity{measured=all",
            "hessian-sensitivity{method=eigenvalue",
            "hessian-sensitivity{method=trace",
            "hessian-sensitivity{method=fisher",
        )
    }
    measured, bound, trace, fisher = (
        np.array([[c.error for c in t.choices] for t in f.tensors]) for f in found.values()
    )
    for name, figures in (("trace", trace), ("fisher", fisher)):
        assert (np.abs(np.log2(figures / measured)) < 1.0).all(), name
    assert (bound > measured).all()
    sizes = [[(c.bits, c.group, c.bytes) for c in t.choices] for t in found.popitem()[1].tensors]
    for other in found.values():
        assert [[(c.bits, c.group, c.bytes) for c in t.choices] for t in other.tensors] == sizes
        assert other.unit == "noise over signal"


def test_operators_without_gradients_and_options_out_of_range_are_refused():
    rng = np.random.default_rng(0)
    body = "g (float[n, 8] x) => (float[n, 8] y) { a = MatMul(x, w)\ny = Hardmax(a) }"
    program = build_program(body, {"w": rng.normal(size=(8, 8)).astype(np.float32)})
    with pytest.raises(PassError, match="Hardmax has no gradient here") as caught:
        table("hessian-sensitivity", program, {"x": np.ones((2, 8), np.float32)})
    assert "measure-sensitivity" in caught.value.hint
    for text in ("method=hawq", "probes=0", "iterations=0", "loss=l1"):
        with pytest.raises(UsageError, match="hessian-sensitivity"):
            Pipeline.parse(f"hessian-sensitivity{{{text}}}")
