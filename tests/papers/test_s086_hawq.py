"""S086: Dong et al. 2019, "HAWQ: Hessian AWare Quantization ... Mixed-Precision", arXiv:1905.03696.

The top eigenvalue of every layer's Hessian by power iteration, its trace by Hutchinson's estimate
(HAWQ-V2, arXiv:1911.03852), and bits by an integer program over sensitivity times squared change
of the weights (HAWQ-V3, arXiv:2011.10680). The MLP of handwritten digits gets 2.5 bits on average
out of 2, 3 and 4, in files whose weights are stored in so many bits.
"""

import itertools

import numpy as np
import pytest

import qcomp
from qcomp.execute import Session
from qcomp.passes.allocate.allocate_bits import uniform_choice
from qcomp.passes.allocate.curvature import Curvature
from qcomp.passes.analyze.output_loss import output_loss
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import QuantizationRecord
from qcomp.sensitivity import AllocatedBits, Sensitivities
from tests.models import from_text
from tests.papers.digits_mlp import SEEDS, accuracy, digits, mlp

pytest.importorskip("torch")

BITS = "bits=[2,3,4],groups=[32],form=int8,rows=512,loss=kl"
STORE = "quantize-weights{bits=2,group=32,symmetric=false,form=int8,method=lsq}"
NAMES = ("w0", "w1", "w2")


def compiled(seed, text):
    x = digits()[0]
    program = qcomp.read(mlp(seed))
    context = Context(calibration=lambda: iter([{"x": x}]))
    Pipeline.parse(f"canonicalise,{text}").run(program, context)
    return program, context


def right(program):
    return accuracy(Session(program.model).run({"x": digits()[1]})["y"])


@pytest.fixture(scope="module")
def tables():
    """Method -> seed -> sensitivities."""
    found = {}
    for method in ("eigenvalue", "trace"):
        text = f"hessian-sensitivity{{method={method},{BITS}}}"
        found[method] = {s: compiled(s, text)[1].get(Sensitivities) for s in list(SEEDS)[:3]}
    return found


def budget(table):
    two, three = (sum(uniform_choice(t, b).bytes for t in table.tensors) for b in (2, 3))
    return (two + three) // 2


def test_the_top_eigenvalue_is_that_of_the_dense_hessian_within_one_percent():
    """A small MLP on the images, 64-24-10; the Hessian of each layer column by column."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (24, 64), "w1": (10, 24)}
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        small (float[batch, 64] x) => (float[batch, 10] y) {
            h = Gemm <transB: int = 1> (x, w0)
            r = Relu (h)
            y = Gemm <transB: int = 1> (r, w1)
        }""",
        **{n: rng.normal(0, 2 / s[1] ** 0.5, s).astype(np.float32) for n, s in shapes.items()},
    )
    program = qcomp.read(model)
    weights = [program.model.graph.initializers[name] for name in shapes]
    made = Curvature(program, weights, {"x": digits()[0][:64]}, output_loss(program, "kl"), rng)
    traces = made.traces(64)
    for name, size in (("w1", 240), ("w0", 1536)):
        some = np.eye(size) if name == "w1" else rng.choice([-1.0, 1.0], (4, size))
        rows = np.stack([made.product(name, v.reshape(shapes[name])).ravel() for v in some])
        if name == "w1":
            assert np.abs(rows - rows.T).max() < 1e-9 * np.abs(rows).max()
            top = np.linalg.eigvalsh(rows)[-1]
            assert made.eigenvalue(name, 100) == pytest.approx(top, rel=0.01)
            assert traces[name] == pytest.approx(np.trace(rows), rel=0.1)
        else:  # no direction has more curvature than the top one
            assert made.eigenvalue(name, 100) >= max((rows * some).sum(1)) / size


@pytest.mark.parametrize("method", ["eigenvalue", "trace"])
def test_the_integer_program_is_the_optimum_of_brute_force(tables, method):
    for seed, table in tables[method].items():
        limit = budget(table)
        best = min(
            sum(c.error for c in ways)
            for ways in itertools.product(*(t.choices for t in table.tensors))
            if sum(c.bytes for c in ways) <= limit
        )
        text = f"hessian-sensitivity{{method={method},{BITS}}},allocate-bits{{max-bytes={limit}}}"
        found = compiled(seed, text)[1].get(AllocatedBits)
        assert found.error == pytest.approx(best, rel=1e-9)
        assert found.bytes <= limit


def with_choices(seed, table, choices):
    rules = ",".join(
        f'"{t.nodes[0]}{{bits={c.bits},group={c.group}}}"'
        for t, c in zip(table.tensors, choices, strict=True)
    )
    return compiled(seed, f"select-nodes{{override=[{rules}]}},{STORE}")


def test_two_and_a_half_bits_beat_two_by_a_point_and_random_assignments_of_the_size(tables):
    """Means of three seeds; 20 random assignments within 5 % of the same budget for each."""
    hawq, two, random = [], [], []
    for seed, table in tables["eigenvalue"].items():
        limit = budget(table)
        method = f"hessian-sensitivity{{method=eigenvalue,{BITS}}}"
        program, context = compiled(seed, f"{method},allocate-bits{{max-bytes={limit}}},{STORE}")
        found = context.get(AllocatedBits)
        assert found.bytes <= limit
        stored = {
            layer.weight: layer.weight_type for layer in context.get(QuantizationRecord).layers
        }
        assert stored == {name: f"u{choice}" for name, choice in found.chosen.items()}
        weights = program.model.graph.initializers.values()
        small = sum(v.const_value.nbytes for v in weights if v.const_value is not None)
        biases = 4 * (128 + 128 + 10)
        assert small - biases <= limit + 200  # shapes and masks that unpack, shared by all layers
        hawq.append(right(program))
        two.append(
            right(with_choices(seed, table, [uniform_choice(t, 2) for t in table.tensors])[0])
        )
        same = [
            ways
            for ways in itertools.product(*(t.choices for t in table.tensors))
            if 0.95 * limit <= sum(c.bytes for c in ways) <= 1.05 * limit
        ]
        rng = np.random.default_rng(seed)
        values = [right(with_choices(seed, table, ways)[0]) for ways in same]
        assert len(values) >= 4
        random += [values[i] for i in rng.integers(0, len(values), 20)]
    assert np.mean(hawq) >= np.mean(two) + 1.0
    assert np.mean(hawq) > np.mean(random) + 0.2
