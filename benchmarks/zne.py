"""Zero-noise extrapolation of the digits model on FakeTorino's noise, exact density matrices.

    python benchmarks/zne.py [--rows 20] [--epochs 12] [--seed 0] [--json OUT]

The model of examples/digits_hybrid with six qubits in place of eight is trained, its circuit is
compiled for FakeTorino, and run on data rows without noise, with noise, and with each extrapolation
of the noisy values. Figures are mean absolute errors of the observables Z0 .. Z5. The script ends
with code 1 when the method that 'auto' chooses does not halve the error.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from qcomp.device import get_device
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import unmapped
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program, Readout
from qcomp.mitigation import Mitigation, fold_scale, success_probability
from qcomp.mitigation.extrapolation import extrapolate
from qcomp.mitigation.folding import METHODS, fold
from qcomp.passmanager import Context, Pipeline
from qcomp.runtime.aer import run_aer
from qcomp.simulate import expectations
from qcomp.target import get_target

QUBITS = 6
NOISE = "fake_torino"
SCALES = {"1,3,5": (1.0, 3.0, 5.0), "1,2,3": (1.0, 2.0, 3.0), "1,3,5,7": (1.0, 3.0, 5.0, 7.0)}
MODELS = ("auto", "linear", "polynomial", "richardson", "exponential", "learned")
SHOTS = 8192
GOAL = 0.5
ROOT = Path(__file__).parent.parent


def example() -> ModuleType:
    """The training script of the example, for six qubits."""
    path = ROOT / "examples" / "digits_hybrid" / "train.py"
    spec = importlib.util.spec_from_file_location("digits_train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.QUBITS = QUBITS
    return module


def trained(rows: int, epochs: int, seed: int) -> tuple[Circuit, np.ndarray, float]:
    """The circuit with trained weights, the angles of test images, and the model's accuracy."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    script = example()
    x, x_test, y, y_test = script.digits()
    model = script.HybridDigits()
    script.train(model, x, y, epochs)
    accuracy = script.judge(model, x_test, y_test)["accuracy"]
    with torch.no_grad():
        angles = (model.encoder(torch.from_numpy(x_test[:rows])) * (np.pi / 2)).double().numpy()
    layer = model.quantum
    weights = dict(zip(layer.weight_names, layer.weight.detach().double().tolist(), strict=True))
    return layer.circuit.bind(weights), angles, accuracy


def mapped(circuit: Circuit, seed: int) -> Circuit:
    """The circuit on the machine's qubits and in its gates."""
    target = get_target("ibm-heron").on(get_device(NOISE))
    program = Program.of_circuit(circuit)
    Pipeline.parse(target.pipeline()).run(program, Context(seed=seed, target=target))
    return program.only_circuit


def sampled(machine: Circuit, angles: np.ndarray, exact: np.ndarray, seed: int) -> dict[str, float]:
    """Errors with samples, readings wrong and mitigated, extrapolated or not."""
    readout = Readout("expval", tuple(Observable.z(q) for q in range(QUBITS)), SHOTS, ())
    wanted = {
        "unmitigated": Mitigation(),
        "readout mitigation": Mitigation(readout=True),
        "auto": Mitigation("auto"),
        "readout mitigation, auto": Mitigation("auto", readout=True),
        "readout mitigation, linear": Mitigation("linear", readout=True),
    }
    return {
        name: float(
            np.abs(run_aer(machine, readout, angles, None, seed, NOISE, how) - exact).mean()
        )
        for name, how in wanted.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    circuit, angles, accuracy = trained(options.rows, options.epochs, options.seed)
    machine = mapped(circuit, options.seed)
    readout = Readout("expval", tuple(Observable.z(q) for q in range(QUBITS)), 0, ())
    exact = expectations(circuit, angles, readout.observables)
    assert np.abs(expectations(unmapped(machine), angles, readout.observables) - exact).max() < 1e-9
    success = success_probability(machine, get_device(NOISE))
    stats = machine.stats()
    print(f"accuracy {accuracy:.4f}; {stats.two_qubit} cz, depth {stats.depth}; success {success}")

    lines = []
    for folding in METHODS:
        known: dict[float, np.ndarray] = {}
        for name, scales in SCALES.items():
            start = time.process_time()
            for scale in scales:
                if scale not in known:
                    folded = fold(machine, scale, folding)
                    known[scale] = run_aer(folded, readout, angles, 0, options.seed, NOISE)
            real = [fold_scale(machine, scale, folding) for scale in scales]
            values = np.stack([known[scale] for scale in scales], axis=-1)
            raw = float(np.abs(known[1.0] - exact).mean())
            for model in MODELS:
                # As a run does it: with few scales the values at infinite noise are taken as known.
                few = model == "auto" and len(scales) < 4
                asymptote = 0.0 if few else None
                found = extrapolate(real, values, model, asymptote=asymptote, seed=options.seed)
                error = float(np.abs(found.values - exact).mean())
                lines.append(
                    {
                        "folding": folding,
                        "scales": name,
                        "model": model,
                        "chosen": found.method,
                        "raw": raw,
                        "error": error,
                        "ratio": error / raw,
                    }
                )
            print(f"{folding} {name}: {time.process_time() - start:.1f} CPU s", flush=True)
    print("| folding | scales | model | error unmitigated | error | ratio |")
    print("|---|---|---|---|---|---|")
    for line in lines:
        model = line["model"] if line["model"] != "auto" else f"auto: {line['chosen']}"
        print(
            f"| {line['folding']} | {line['scales']} | {model} | {line['raw']:.4f} "
            f"| {line['error']:.4f} | {line['ratio']:.3f} |"
        )
    print(f"\n| with {SHOTS} shots | error |\n|---|---|")
    for name, error in sampled(machine, angles, exact, options.seed).items():
        print(f"| {name} | {error:.4f} |")
    if options.json:
        options.json.write_text(json.dumps(lines, indent=1))
    wanted = Mitigation("auto")
    through_run = run_aer(machine, readout, angles, 0, options.seed, NOISE, wanted)
    default = next(
        line
        for line in lines
        if (line["folding"], line["scales"], line["model"]) == ("global", "1,3,5", "auto")
    )
    assert abs(np.abs(through_run - exact).mean() - default["error"]) < 1e-9
    if default["ratio"] > GOAL:
        raise SystemExit(f"the error is cut to {default['ratio']:.2f}, the goal is {GOAL}")


if __name__ == "__main__":
    main()
