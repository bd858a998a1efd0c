"""Trained classifiers in Clifford+T: accuracy where the outputs need it beside one for all."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from qcomp.angle_accuracies import AngleData
from qcomp.ir.program import Program
from qcomp.passes.allocate.angle_effects import Effects
from qcomp.passes.allocate.angle_fronts import predicted_saving
from qcomp.passes.synthesize.clifford_t.chains import chains_of
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate.from_states import expectations_from

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def angles() -> ModuleType:
    """The benchmark, which builds the circuits from the trained weights."""
    pytest.importorskip("sklearn")
    loaded = {}
    for name in ("train_angle_classifier", "angles"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded[name] = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(name, loaded[name])
        spec.loader.exec_module(loaded[name])
    return loaded["angles"]


def test_the_closed_form_says_what_accuracy_by_sensitivity_saves(angles: ModuleType) -> None:
    circuit, data, _ = angles.classifier("cone")
    data = AngleData(data.observables, data.states[::12])
    chains = chains_of(circuit.run)
    assert sum(len(chain.angles) for chain in chains) >= 100
    effects = Effects(circuit, chains, data)
    slopes = effects.sensitivities().first
    predicted = predicted_saving(np.repeat(slopes, [len(chain.angles) for chain in chains]))
    alike, weighted = np.ones(len(chains)), 1 / slopes
    saved = [
        angles._closed(alike, effects, slopes, bound)
        - angles._closed(weighted, effects, slopes, bound)
        for bound in (1e-3, 1e-4)
    ]
    assert np.mean(saved) == pytest.approx(predicted, rel=0.1)


def test_a_classifier_takes_a_quarter_fewer_t_gates_within_its_promise(angles: ModuleType) -> None:
    circuit, data, _ = angles.classifier("cone")
    data = AngleData(data.observables, data.states[::12])
    chains = chains_of(circuit.run)
    effects = Effects(circuit, chains, data)
    exact = effects.values()
    limit = 0.1
    alike = angles._largest(np.ones(len(chains)), effects, exact, limit, steps=7, scanned=0)
    assert alike is not None
    # Words of single rotations chosen together; with chains written at once besides.
    for direct, share in ((0, 0.9), (26, 0.75)):
        program, context = Program.of_circuit(circuit.copy()), Context()
        context.put(data)
        text = f"allocate-angles{{observable_error={limit},direct_t={direct}}}"
        Pipeline.parse(f"{text},synthesize-rotations").run(program, context)
        new = program.only_circuit
        values = expectations_from(new, data.states, None, data.observables)
        assert np.abs(values - exact).max() <= limit
        assert new.stats().t_count <= share * alike[0]
