"""Whatever the bytes: a program, or one of our own errors. Never a traceback, never a hang."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcomp.backends.onnx_file import save_program
from qcomp.errors import QcompError, SourceError
from qcomp.frontends.onnx_model import OnnxFrontend
from qcomp.ir.program import Program
from qcomp.passes.graph.canonicalise import Canonicalise
from qcomp.passes.graph.fold_constants import FoldConstants
from qcomp.passes.graph.fuse_batch_norm import FuseBatchNorm
from qcomp.passes.graph.no_ops import _REWRITES
from qcomp.passmanager import Context
from tests import models

BUILDERS: list[Callable[[], onnx.ModelProto]] = [
    models.mlp,
    models.small_cnn,
    models.with_if,
    models.with_loop,
    models.with_scan,
    models.with_function,
    models.with_custom_domain,
]
CORPUS = [build().SerializeToString() for build in BUILDERS]


def read(data: bytes) -> Program | None:
    """Read bytes; a program, or None where a ``SourceError`` with a message was raised."""
    try:
        return OnnxFrontend().read(data)
    except SourceError as error:
        check_message(error)
        return None


def use(program: Program, folder: Path) -> None:
    """Do with a program what a compile does; only our own errors may come."""
    try:
        context = Context()
        for step in (Canonicalise(), FoldConstants(), FuseBatchNorm()):
            step.run(program, context)
        save_program(program, folder / "out.onnx")
    except QcompError as error:
        check_message(error)


def check_message(error: QcompError) -> None:
    assert error.what
    assert "Traceback" not in str(error)


@pytest.mark.parametrize("data", CORPUS, ids=[build.__name__ for build in BUILDERS])
def test_a_model_cut_off_anywhere_is_refused_or_read(data: bytes) -> None:
    step = max(1, len(data) // 150)
    outcomes = [read(data[:end]) is None for end in range(0, len(data), step)]
    assert sum(outcomes) > len(outcomes) * 0.9


@pytest.mark.parametrize("seed", range(len(CORPUS)))
def test_mutated_models_are_refused_or_compiled(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(120):
        data = bytearray(CORPUS[seed])
        for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
            mutate(data, rng)
        with warnings.catch_warnings():
            # A mutated weight may well overflow; that is no fault.
            warnings.simplefilter("ignore", RuntimeWarning)
            program = read(bytes(data))
            refused += program is None
            if program is not None:
                use(program, tmp_path)
    assert refused > 10


def mutate(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    elif kind == 2:
        del data[at : at + rng.randrange(1, 9)]
    elif kind == 3:
        data[at:at] = rng.randbytes(rng.randrange(1, 9))
    else:
        other = rng.randrange(len(data))
        data[at : at + 8] = data[other : other + 8]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert read(data) is None


names = st.sampled_from(["x", "y", "a", "b", ""])
nodes = st.lists(
    st.tuples(
        st.sampled_from(["Add", "Neg", "Identity", "Reshape", "Cast", "If", "Concat", "Nope", ""]),
        st.lists(names, max_size=3),
        st.lists(names, max_size=2),
    ),
    max_size=5,
)
dims = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4), max_size=3)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(nodes=nodes, dims=dims, size=st.integers(0, 40), kind=st.integers(-1, 30))
def test_graphs_of_random_nodes_and_tensors_are_refused_or_compiled(
    tmp_path: Path,
    nodes: list[tuple[str, list[str], list[str]]],
    dims: list[int],
    size: int,
    kind: int,
) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, reads, writes) for op, reads, writes in nodes],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [2])],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
    )
    weight = graph.initializer.add()
    weight.name, weight.raw_data = "b", bytes(size)
    weight.dims.extend(dims)
    weight.data_type = kind
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )
    program = read(proto.SerializeToString())
    if program is not None:
        use(program, tmp_path)


def test_the_corpus_itself_is_read_and_compiled(tmp_path: Path) -> None:
    for data in CORPUS:
        program = read(data)
        assert program is not None
        use(program, tmp_path)
        assert np.frombuffer((tmp_path / "out.onnx").read_bytes(), np.uint8).size > 0


@pytest.mark.parametrize("operator", sorted(_REWRITES))
@pytest.mark.parametrize("inputs", [0, 1, 2])
def test_a_pair_of_operators_without_their_inputs_is_refused_or_compiled(
    tmp_path, operator, inputs
):
    nodes = [
        onnx.helper.make_node(operator, [], ["m"]),
        onnx.helper.make_node(operator, ["m", "m"][:inputs], ["y"]),
    ]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])]
    graph = onnx.helper.make_graph(nodes, "g", [], outputs)
    program = read(onnx.helper.make_model(graph).SerializeToString())
    if program is not None:
        use(program, tmp_path)
