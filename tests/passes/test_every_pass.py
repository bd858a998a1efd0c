"""One property test over the whole registry: what every pass, ours or a plugin's, has to hold."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.equivalence import check
from qcomp.equivalence.distance import check_within
from qcomp.equivalence.graphs import compare, random_inputs
from qcomp.execute import HybridSession
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from qcomp.ir.verify import verify
from qcomp.passmanager import CircuitPass, Context, GraphPass, Guarantee, Pass, Pipeline
from qcomp.pipeline_text import make_pass
from qcomp.registry import load, names
from tests.generators import CIRCUITS, GRAPHS
from tests.ir.dense import dense

SEEDS = range(8)

TIMES = {"one_qubit_ns": 10, "two_qubit_ns": 150, "measure_ns": 900}

VARIANTS: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "to-basis": (
        {"gates": ("cz", "rz", "sx", "x")},
        {"gates": ("cx", "u")},
        {"gates": ("ecr", "rz", "sx", "x")},
        {"gates": ("h", "x", "y", "z", "s", "t", "rx", "ry", "rz", "cz")},
        {"gates": ("gpi", "gpi2", "ms"), "limits": ("ms",)},
        {"gates": ("rx", "rz", "iswap"), "limits": ("rx",)},
        {"gates": ("r", "rz", "rzz"), "limits": ("rzz",)},
    ),
    "fuse-one-qubit": (
        *({}, {"basis": "u"}, {"basis": "rz-sx-x"}, {"basis": "h-x-rz"}),
        *({"basis": "rz-r"}, {"basis": "gpi-gpi2"}),
    ),
    "insert-dynamical-decoupling": (
        {**TIMES, "sequence": "XY4", "schedule": "asap", "repeats": 3},
        {**TIMES, "sequence": "CPMG", "device": "fake_torino"},
    ),
    "map-to-device": (
        {"device": "grid-3x3", "effort": "fast"},
        {"device": "line-9", "basis": "rz-sx-x"},
    ),
    "orient-gates": ({"device": "fake_sherbrooke"},),
    "merge-quarter-turns": ({}, {"into": "rx"}),
    "collect-rzz": ({}, {"symbols": False}),
    "fold-gates": ({}, {"scale": 2.2, "method": "local"}, {"scale": 5, "method": "two-qubit"}),
    "resynthesize-cliffords": ({}, {"slack": 2}),
    "resynthesize-phase-polynomials": ({}, {"tries": 8}, {"tries": 3, "window": 12}),
    "resynthesize-pauli-rotations": (*({}, {"basis": "rz-sx-x", "tries": 4}, {"basis": "h-x-rz"}),),
    "resynthesize-pauli-networks": ({}, {"tries": 4, "slack": 2}),
    "resynthesize-windows": ({}, {"basis": "rz-sx-x"}, {"two_qubit": 1.0}),
    "allocate-angles": ({"error": 1.9, "direct_t": 0},),
    "synthesize-rotations": (
        *({"epsilon": 0.02}, {"epsilon": 1e-5, "direct_t": 0}, {"epsilon": 0.1, "mix": True}),
    ),
    "reduce-t-count": ({}, {"method": "fasttodd"}),
    "quantize-embeddings": ({}, {"least_rows": 2}, {"least_rows": 2, "bits": 4, "group": 16}),
    "quantize-weights": ({}, {"method": "lsq", "symmetric": False}),
    "quantize-cache": ({}, {"bits": 4}),
    "measure-sensitivity": ({}, {"form": "static", "measured": "one", "loss": "squared"}),
    "entropy-sensitivity": ({}, {"form": "static", "rows": 2}),
    "hessian-sensitivity": ({}, {"method": "fisher", "form": "int8", "probes": 2}),
    "measure-costs": ({}, {"form": "int8"}),
    "allocate-bits": (
        {"max_ratio": 1.3, "needs_data": False},
        {"max_error": 0.5, "method": "frontier", "needs_data": False},
    ),
    "dqa": ({}, {"bits": 5, "extra": 1, "share": 1.0, "symmetric": True}),
    "quantize-tokens": (
        *({}, {"bits": 4, "weights": 4, "symmetric": False, "kv": 4}),
        {"weights": 3, "group": 16, "kv": 8},
    ),
    "qllm": ({}, {"assemble": False, "rank": 0, "norms": "product", "tokens": 8}),
    "awq": ({}, {"bits": 3, "group": 0, "symmetric": True, "clip": True}),
    "gptq": ({}, {"order": "activation", "bits": 3, "fit": "lsq"}),
    "dpq": ({}, {"bits": 3, "group": 0, "symmetric": True}),
    "quantize-fp8": ({}, {"group": 16, "symmetric": True}),
    "gptaq": ({}, {"group": 0, "symmetric": True, "fit": "minmax"}),
    "rsq": ({}, {"importance": "norm", "least": 0.1}),
    "qoq": ({}, {"group": 16, "fit": "minmax", "feedback": False}),
    "smooth-attention": ({}, {"strength": 1.0}),
    "smooth-outliers": ({}, {"group": 16, "symmetric": False, "gain": 0.0}),
    "choose-method": ({}, {"methods": ("hqq", "gptq", "gpfq"), "budget": 1.5}),
    "gpfq": ({}, {"threshold": "soft", "bits": 2, "fit": "hqq"}),
    "nupes": ({}, {"bits": 2, "exponent": 0.7}),
    "jlcm": ({}, {"bits": 3, "neurons": 0, "rounds": 1}),
    "halve-constants": ({}, {"least_bytes": 16}),
    "learn-rounding": (
        {"steps": 1, "rows": 8, "batch": 4},
        {"steps": 1, "rows": 8, "batch": 4, "bits": 4, "granularity": "layer"},
        {"steps": 1, "rows": 8, "batch": 4, "scheme": "tokens", "granularity": "entropy"},
    ),
    "rotate": ({}, {"online": True, "keys": True}),
    "learn-rotations": ({"steps": 2, "rows": 8, "batch": 4},),
    "quantize-residual": ({}, {"order": 3, "bits": 3, "keep": 0.5}, {"store": "float"}),
    "store-weights": ({}, {"least_bytes": 16}),
    "optimize-scales": ({}, {"layers": "all", "weight_scales": "tensor", "rounds": 1}),
    "search": ({"steps": 3}, {"steps": 2, "cost": "gates+depth", "temperature": 1.0}),
    "consolidate-two-qubit": (
        *({}, {"basis": "u"}, {"basis": "rz-sx-x"}, {"basis": "h-x-rz"}),
        *({"basis": "rz-r", "pair": "rzz"}, {"pair": "iswap"}, {"basis": "u", "pair": "siswap"}),
    ),
}
"""Options that a pass is tried with; its defaults where it is not named."""

FIRST: Mapping[str, str] = {
    "smooth-activations": "canonicalise",
    "awq": "canonicalise,fold-constants",
    "qllm": "canonicalise,fold-constants",
    "rotate": "canonicalise,fold-constants",
    "learn-rotations": "canonicalise,fold-constants",
    "quantize-embeddings": "canonicalise",
    "halve-constants": "canonicalise",
    "quantize-lstm": "canonicalise",
    "store-weights": "canonicalise",
    "quantize-dynamic": "canonicalise",
    "quantize-tokens": "canonicalise",
    "measure-sensitivity": "inline-functions,canonicalise,fold-constants",
    "entropy-sensitivity": "inline-functions,canonicalise,fold-constants",
    "hessian-sensitivity": "inline-functions,canonicalise,fold-constants",
    "measure-costs": "inline-functions,canonicalise,fold-constants,measure-sensitivity",
    "allocate-bits": "inline-functions,canonicalise,fold-constants,measure-sensitivity",
    "quantize-weights": "canonicalise",
    "quantize-cache": "canonicalise",
    "dqa": "canonicalise,fold-constants",
    "quantize-static": "canonicalise,fold-constants,calibrate",
    "quantize-residual": "canonicalise",
    "gptq": "canonicalise,fold-constants",
    "dpq": "canonicalise,fold-constants",
    "quantize-fp8": "canonicalise,fold-constants,calibrate",
    "gptaq": "canonicalise,fold-constants",
    "rsq": "canonicalise,fold-constants",
    "qoq": "canonicalise,fold-constants",
    "smooth-attention": "canonicalise,fold-constants",
    "smooth-outliers": "canonicalise,fold-constants",
    "choose-method": "canonicalise,fold-constants",
    "gpfq": "canonicalise,fold-constants",
    "sort-neurons": "canonicalise,fold-constants",
    "nupes": "canonicalise,fold-constants",
    "jlcm": "canonicalise,fold-constants",
    "optimize-scales": "canonicalise,fold-constants,calibrate",
    "learn-rounding": "canonicalise,fold-constants,calibrate",
    "correct-bias": "canonicalise,fold-constants,calibrate,quantize-static",
    "quantization-error": "canonicalise,fold-constants,calibrate,quantize-static",
    "insert-dynamical-decoupling": "to-basis{gates=[cx,rz,sx,x]}",
    "orient-gates": "to-basis{gates=[cx],max_qubits=1},map-to-device{device=fake_sherbrooke}",
}
"""What has to run before a pass."""

SQNR_DB = 6.0
"""Least signal over noise of a pass that only promises to stay within the budget."""


def instances(name: str) -> list[Pass]:
    """The pass with each of its variants of options."""
    return [make_pass(name, options) for options in VARIANTS.get(name, ({},))]


def of_kind(kind: type[Pass]) -> list[str]:
    return [name for name in names("passes") if issubclass(load("passes", name), kind)]


def circuit_bytes(circuit: Circuit) -> bytes:
    """Everything that a circuit is, as bytes."""
    parts: list[object] = [circuit.num_qubits, circuit.params, circuit.global_phase]
    for run in circuit.runs():
        forms = [circuit.forms.row(int(i)) for i in run.form]
        parts += [getattr(run, name).tolist() for name in ("code", "qubit", "frac", "extra")]
        parts += [[value.hex() for value in run.rem.tolist()], forms]
    return repr(parts).encode()


def model_bytes(program: Program) -> bytes:
    graph = ir.to_proto(program.model).SerializeToString(deterministic=True)
    return graph + b"".join(
        name.encode() + circuit_bytes(circuit) for name, circuit in program.circuits.items()
    )


def structure(program: Program) -> bytes:
    """The bytes of a program but for names of nodes and known shapes, which are no structure."""
    proto = ir.to_proto(program.model)
    graphs = [proto.graph, *proto.functions]
    while graphs:
        graph = graphs.pop()
        graph.ClearField("value_info")
        for node in graph.node:
            node.ClearField("name")
            for attribute in node.attribute:
                graphs += [attribute.g, *attribute.graphs]
    circuits = [name.encode() + circuit_bytes(c) for name, c in program.circuits.items()]
    return proto.SerializeToString(deterministic=True) + b"".join(circuits)


def test_every_registered_pass_has_a_generator() -> None:
    known = [*of_kind(CircuitPass), *of_kind(GraphPass)]
    assert sorted(known) == sorted(names("passes"))


def prepared_circuit(name: str, kind: str, seed: int) -> Circuit:
    circuit = CIRCUITS[kind](seed)
    if name not in FIRST:
        return circuit
    program = Program.of_circuit(circuit)
    Pipeline.parse(FIRST[name]).run(program, Context())
    return program.only_circuit


@pytest.mark.parametrize("kind", CIRCUITS)
@pytest.mark.parametrize("name", of_kind(CircuitPass))
def test_circuit_pass_keeps_its_contract(name: str, kind: str) -> None:
    changed = 0
    for instance in instances(name):
        for seed in SEEDS:
            before = prepared_circuit(name, kind, seed)
            kept = circuit_bytes(before)
            context = Context(seed=seed)
            after = instance.run(before, context)
            where = f"{instance} on {before.name}"
            assert circuit_bytes(before) == kept, f"{where}: the input was changed"
            verify(after, after=name)
            assert instance.run(after, Context(seed=seed)) is after, f"{where}: second run"
            again = instance.run(prepared_circuit(name, kind, seed), Context(seed=seed))
            assert circuit_bytes(again) == circuit_bytes(after), f"{where}: other bytes"
            if after is before:
                continue
            changed += 1
            assert not before.equals(after), f"{where}: a new object for the same circuit"
            if instance.preserves is Guarantee.WITHIN:
                check_within(instance.name, before, after, context.ledger.entries)
                continue
            verdict = check(
                before,
                after,
                seed=seed,
                only_bits=instance.only_bits,
                from_zero=instance.from_zero,
            )
            assert verdict.equal is True, f"{where}: {verdict}"
            assert verdict.error <= 1e-9
            if kind == "straight" and after.layout is None and not instance.from_zero:
                # Apart from the simulator, and with the global phase.
                values = {"a": 0.7, "b": -1.9}
                # Delays do nothing to the state.
                gates = after.copy(body=(Run.concat(after.runs()),))
                error = np.abs(dense(before, **values) - dense(gates, **values)).max()
                assert error < 1e-9, f"{where}: {error}"
    if name in (
        "merge-rotations",
        "merge-pauli-rotations",
        "cancel-inverses",
        "fuse-one-qubit",
        "to-basis",
        "assume-zero",
    ):
        assert changed, "no circuit was changed: nothing was tested"


@functools.cache
def calibration(kind: str, seed: int) -> tuple[Mapping[str, np.ndarray], ...]:
    program = GRAPHS[kind](seed)
    return tuple(random_inputs(program, seed + i) for i in range(3))


def context_for(kind: str, seed: int) -> Context:
    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        return iter(calibration(kind, seed))

    return Context(seed=seed, calibration=batches)


def prepared(name: str, kind: str, seed: int) -> tuple[Program, Context]:
    program, context = GRAPHS[kind](seed), context_for(kind, seed)
    Pipeline.parse(FIRST.get(name, "")).run(program, context)
    return program, context


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("name", of_kind(GraphPass))
def test_graph_pass_keeps_its_contract(name: str, kind: str) -> None:
    for seed in (0, 1):
        for instance in instances(name):
            before, _ = prepared(name, kind, seed)
            program, context = prepared(name, kind, seed)
            where = f"{instance} on {kind} {seed}"
            kept = structure(program)
            changed = instance.run(program, context)
            made = model_bytes(program)
            assert changed == (structure(program) != kept), f"{where}: says changed={changed}"
            well_formed(program)
            assert not instance.run(program, context), f"{where}: second run"
            assert model_bytes(program) == made, f"{where}: second run"
            other, fresh = prepared(name, kind, seed)
            instance.run(other, fresh)
            assert model_bytes(other) == made, f"{where}: other bytes"
            if changed:
                still_right(instance, before, program, seed, where)


def well_formed(program: Program) -> None:
    """The graph as ONNX's own checker sees it, but for our node, and the circuits as ours does."""
    proto = ir.to_proto(program.model)
    if not program.circuits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnx.checker.check_model(proto)
    for circuit in program.circuits.values():
        verify(circuit)


def still_right(instance: Pass, before: Program, after: Program, seed: int, where: str) -> None:
    if instance.preserves is not Guarantee.WITHIN:
        verdict = check(before, after, seed=seed)
        assert verdict.equal is True, f"{where}: {verdict}"
        return
    feeds = random_inputs(before, seed)
    reference, result = HybridSession(before).run(feeds), HybridSession(after).run(feeds)
    for output, value in reference.items():
        _, _, sqnr = compare(value, result[output])
        assert sqnr > SQNR_DB, f"{where}: {output} at {sqnr:.1f} dB"
