"""T counts of rotations and of trained classifiers, beside other engines and uniform accuracy.

    python benchmarks/angles.py rz [--angles 1000] [--pygridsynth PYTHON] [--keep FILE]
    python benchmarks/angles.py u3 [--angles 50]
    python benchmarks/angles.py classifier [--kinds ring,qcnn,cone] [--limits 0.1,0.02,1e-3]

``rz``: mean T per RZ over the same random angles, each word measured in operator norm; PYTHON is
an interpreter with pygridsynth. ``u3``: a random unitary at once, beside three rotations.
``classifier``: the circuits of ``train_angle_classifier.py``, test rows as initial states: T gates
for the same largest change of an observable, accuracy for all rotations alike (bisection) beside
accuracy in proportion to 1/sensitivity, words chosen together, and chains at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np
from train_angle_classifier import QUBITS, digits, gates, labels, logits, observables

from qcomp.angle_accuracies import AngleBudgets, AngleData
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passes.allocate.angle_effects import Effects
from qcomp.passes.allocate.angle_fronts import predicted_saving
from qcomp.passes.synthesize.clifford_t.chains import chains_of
from qcomp.passes.synthesize.clifford_t.normal_form import normal_form, rz_quaternion
from qcomp.passes.synthesize.clifford_t.rotations import rotation_word
from qcomp.passes.synthesize.clifford_t.table import shortest
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import for_basis

EPSILONS = (1e-2, 1e-3, 1e-5, 1e-7, 1e-10)
DATA = Path(__file__).parent / "data"
_PEER = """
import json, sys, warnings
warnings.filterwarnings("ignore")
from pygridsynth import gridsynth_gates
angles, epsilon = json.load(sys.stdin)
json.dump([gridsynth_gates(angle, epsilon) for angle in angles], sys.stdout)
"""
_LETTERS = {"H": "h", "T": "t", "S": "s", "X": "x"}
_CHUNK = 100


def _qiskit(angle, epsilon):
    from qiskit.synthesis import gridsynth_rz

    return [instruction.operation.name for instruction in gridsynth_rz(angle, epsilon).data]


def _pygridsynth(python, angles, epsilon):
    done = subprocess.run([python, "-c", _PEER], input=json.dumps([angles, epsilon]),
                          capture_output=True, text=True, check=True)  # fmt: skip
    return [[_LETTERS[c] for c in w[::-1] if c in _LETTERS] for w in json.loads(done.stdout)]


def _kept(path):
    """Return what an earlier run wrote to a file, so that this one goes on from there."""
    return json.loads(path.read_text()) if path is not None and path.is_file() else {}


def rz(options) -> None:
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, options.angles).tolist()
    engines = {
        "qcomp": lambda part, eps: [rotation_word(0, angle, eps).word for angle in part],
        "qiskit at eps": lambda part, eps: [normal_form(_qiskit(a, eps)) for a in part],
        "qiskit at 2 eps": lambda part, eps: [normal_form(_qiskit(a, 2 * eps)) for a in part],
    }
    if options.pygridsynth:
        engines["pygridsynth at eps"] = lambda part, eps: [
            normal_form(word) for word in _pygridsynth(options.pygridsynth, part, eps)
        ]
    found = _kept(options.keep)
    print(f"| eps | {' | '.join(engines)} | largest error / eps of each |")
    print("|---" * (len(engines) + 2) + "|")
    for epsilon in EPSILONS:
        means, worst = [], []
        for name, engine in engines.items():
            rows = found.setdefault(f"{name}, {epsilon:.0e}", [])
            while len(rows) < len(angles):
                part = angles[len(rows) : len(rows) + _CHUNK]
                for word, angle in zip(engine(part, epsilon), part, strict=True):
                    rows.append([word.t_count, word.distance(rz_quaternion(angle)) / epsilon])
                if options.keep is not None:
                    options.keep.write_text(json.dumps(found))
            counts, errors = np.array(rows[: len(angles)]).T
            means.append(f"{counts.mean():.2f}")
            worst.append(f"{errors.max():.2f}")
        print(f"| {epsilon:.0e} | {' | '.join(means)} | {', '.join(worst)} |", flush=True)


def u3(options) -> None:
    rng = np.random.default_rng(0)
    print("| eps | at once | three RZ within eps together | ratio | CPU s each, at once |")
    print("|---|---|---|---|---|")
    for epsilon in (1e-2, 3e-3, 1e-3):
        at_once, three, seconds = [], [], 0.0
        for _ in range(options.angles):
            point = rng.normal(size=4)
            point /= np.linalg.norm(point)
            start = time.process_time()
            word = shortest(point, epsilon, 32)
            seconds += time.process_time() - start
            assert word is not None
            assert word.distance(point) <= epsilon
            at_once.append(word.t_count)
            turns = rng.uniform(-np.pi, np.pi, 3)
            three.append(sum(rotation_word(0, float(a), epsilon / 3).t_count for a in turns))
        mean, other = np.mean(at_once), np.mean(three)
        print(f"| {epsilon:.0e} | {mean:.1f} | {other:.1f} | {mean / other:.2f} | "
              f"{seconds / options.angles:.2f} |")  # fmt: skip


def classifier(kind):
    """Return the merged circuit, its data, and what turns its values into a share of right rows."""
    weights = np.load(DATA / f"angles_{kind}.npz")
    angles = iter(weights["angles"].tolist())
    circuit = Circuit(QUBITS, name=kind)
    for name, qubits in gates(kind):
        if name == "cx":
            circuit.cx(*qubits)
        else:
            getattr(circuit, name)(next(angles), *qubits)
    _, _, states, digit = digits(kind)
    expected = labels(kind, digit)
    program = Program.of_circuit(circuit)
    Pipeline.parse(for_basis(("h", "x", "rz", "cx"), "h-x-rz", "fast")).run(program, Context())

    def right(values):
        return float((logits(kind, values, float(weights["factor"])).argmax(1) == expected).mean())

    return program.only_circuit, AngleData(observables(kind), states.astype(complex)), right


def _largest(accuracies, effects, exact, limit, steps=16, scanned=24):
    """Return (T, change) of the largest factor on accuracies that keeps a limit.

    By bisection, and since the change is not monotone, among some factors up to thrice that.
    """
    low, high = 1e-6 / accuracies.max(), 0.5 / accuracies.max()

    def within(factor):
        points = [
            chain.within(len(chain.angles) * float(min(a * factor, 1.0)), 0)
            for chain, a in zip(effects.chains, accuracies, strict=True)
        ]
        change = np.abs(effects.values([np.array(p.word.quaternion) for p in points]) - exact).max()
        return (sum(p.t_count for p in points), float(change)) if change <= limit else None

    best = None
    for _ in range(steps):
        middle = (low * high) ** 0.5
        if (found := within(middle)) is not None:
            low, best = middle, found
        else:
            high = middle
    for factor in np.geomspace(3 * low, low, scanned + 1)[:-1]:
        if (found := within(float(factor))) is not None:
            return found
    return best


def _closed(accuracies, effects, slopes, bound):
    """Return T gates of words within accuracies whose first-order bound is ``bound``."""
    total = sum(len(c.angles) * s * a
                for c, s, a in zip(effects.chains, slopes, accuracies, strict=True))  # fmt: skip
    return sum(
        rotation_word(*angle, float(a) * bound / total).t_count
        for chain, a in zip(effects.chains, accuracies, strict=True)
        for angle in chain.angles
    )


def classifiers(options) -> None:
    for kind in options.kinds.split(","):
        circuit, data, right = classifier(kind)
        chains = chains_of(circuit.run)
        effects = Effects(circuit, chains, data)
        exact = effects.values()
        slopes = effects.sensitivities().first
        sizes = [len(chain.angles) for chain in chains]
        predicted = predicted_saving(np.repeat(slopes, sizes))
        print(f"\n{kind}: {sum(sizes)} rotations in {len(chains)} chains, accuracy "
              f"{right(exact):.4f}; closed form predicts {predicted:.1f} T less")  # fmt: skip
        alike = np.ones(len(chains))
        weighted = 1 / np.maximum(slopes, 1e-3)
        saved = [
            _closed(alike, effects, slopes, bound) - _closed(weighted, effects, slopes, bound)
            for bound in np.geomspace(1e-4, 1e-3, options.bounds)
        ]
        print(f"saved at equal first-order bounds, mean of {options.bounds}: {np.mean(saved):.1f} "
              f"({np.mean(saved) / predicted:.2f} of that)")  # fmt: skip
        print("| largest change | alike | in proportion | words together | and chains at once | "
              "accuracy | promise kept |\n|---|---|---|---|---|---|---|")  # fmt: skip
        for limit in (float(x) for x in options.limits.split(",")):
            rows = [_largest(a, effects, exact, limit) for a in (alike, weighted)]
            counts = []
            for direct in (0, 26):
                program, context = Program.of_circuit(circuit.copy()), Context()
                context.put(data)
                text = f"allocate-angles{{observable_error={limit},direct_t={direct}}}"
                Pipeline.parse(f"{text},synthesize-rotations").run(program, context)
                budget = context.need(AngleBudgets, "allocate-angles").by_circuit[kind]
                whole = program.only_circuit
                values = Effects(whole, [], data).values()
                measured = float(np.abs(values - exact).max())
                counts.append((whole.stats().t_count, measured, right(values), budget.limit))
            first = rows[0][0]
            cells = [f"{rows[0][0]}", f"{rows[1][0]} ({1 - rows[1][0] / first:.1%})"]
            cells += [f"{t} ({1 - t / first:.1%})" for t, *_ in counts]
            kept = all(measured <= promise for _, measured, _, promise in counts)
            print(f"| {limit:g} | {' | '.join(cells)} | {counts[-1][2]:.4f} | {kept} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("rz", "u3", "classifier"))
    parser.add_argument("--angles", type=int, default=1000)
    parser.add_argument("--pygridsynth", help="a Python that has it")
    parser.add_argument("--keep", type=Path, help="a file to go on from, and to write to")
    parser.add_argument("--kinds", default="ring,qcnn,cone")
    parser.add_argument("--limits", default="0.1,0.02,0.01,0.001,0.0001")
    parser.add_argument("--bounds", type=int, default=4)
    options = parser.parse_args()
    {"rz": rz, "u3": u3, "classifier": classifiers}[options.what](options)


if __name__ == "__main__":
    main()
