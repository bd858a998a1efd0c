"""Trains the variational classifiers that ``angles.py`` compiles to Clifford+T.

Digits (8 x 8, scikit-learn), as amplitudes of six of eight qubits or, for ``cone``, by eight
principal components, each a turn of its own qubit.

* ``ring``: seven layers of RY, RZ and a ring of CX, then RY, 120 angles; ten observables are the
  scores of the ten classes.
* ``qcnn``: convolutions of pairs and poolings from 8 to 4 to 2 qubits and 1, 147 angles; Z of the
  last qubit says even or odd.
* ``cone``: nine layers of RY, RZ and CX of neighbours, begun at small angles, and of them what Z of
  the fourth qubit sees: 119 angles; it says even or odd.

Writes the angles, the factor before the softmax and the accuracy on the test rows; some minutes:

    python benchmarks/train_angle_classifier.py ring benchmarks/data/angles_ring.npz
"""

from __future__ import annotations

import sys

import numpy as np

QUBITS = 8


def _seen(every, read):
    """Return the gates that an observable of one qubit depends on."""
    cone, out = {read}, []
    for name, qubits in reversed(every):
        if cone & set(qubits):
            cone |= set(qubits)
            out.append((name, qubits))
    return out[::-1]


def gates(kind):
    """Return (name, qubits) in order; each ry and rz has an angle of its own."""
    out = []
    if kind == "ring":
        for layer in range(8):
            for q in range(QUBITS):
                out.append(("ry", (q,)))
                if layer < 7:
                    out.append(("rz", (q,)))
            if layer < 7:
                out += [("cx", (q, (q + 1) % QUBITS)) for q in range(QUBITS)]
        return out
    if kind == "cone":
        for layer in range(9):
            out += [(name, (q,)) for q in range(QUBITS) for name in ("ry", "rz")]
            out += [("cx", (q, q + 1)) for q in range(layer % 2, QUBITS - 1, 2)]
        out += [("ry", (q,)) for q in range(QUBITS)]
        return _seen(out, 3)

    def block(a, b):
        for q in (a, b):
            out.extend([("ry", (q,)), ("rz", (q,))])
        out.extend([("cx", (a, b)), ("ry", (a,)), ("ry", (b,)), ("cx", (b, a))])

    def pool(kept, dropped):
        out.extend([("rz", (dropped,)), ("cx", (dropped, kept)), ("ry", (kept,))])

    for _ in range(2):
        for a, b in ((0, 1), (2, 3), (4, 5), (6, 7), (1, 2), (3, 4), (5, 6), (7, 0)):
            block(a, b)
    for q in (0, 2, 4, 6):
        pool(q, q + 1)
    for a, b in ((0, 2), (4, 6), (2, 4), (6, 0)):
        block(a, b)
    for q in (0, 4):
        pool(q, q + 2)
    for a, b in ((0, 4), (4, 0)):
        block(a, b)
    pool(0, 4)
    out.append(("ry", (0,)))
    return out


def observables(kind):
    """Return what is read."""
    if kind != "ring":
        return ("Z3" if kind == "cone" else "Z0",)
    return (*(f"Z{q}" for q in range(QUBITS)), "Z0*Z1", "Z2*Z3")


def digits(kind):
    """Return (train states, labels, test states, labels), float64[n, 2^8]."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    parts = train_test_split(
        data.data, data.target, test_size=0.4, random_state=0, stratify=data.target
    )
    states = []
    if kind == "cone":
        from sklearn.decomposition import PCA

        pca = PCA(QUBITS).fit(parts[0])
        width = 2 * pca.transform(parts[0]).std(axis=0)
        for rows in parts[:2]:
            turns = np.pi / 4 * (1 + np.clip(pca.transform(rows) / width, -1, 1))
            wide = np.ones((len(rows), 1))
            for turn in turns.T:
                qubit = np.stack([np.cos(turn / 2), np.sin(turn / 2)], axis=1)
                wide = (qubit[:, :, None] * wide[:, None, :]).reshape(len(rows), -1)
            states.append(wide)
        return states[0], parts[2], states[1], parts[3]
    for rows in parts[:2]:
        wide = np.zeros((len(rows), 1 << QUBITS))
        wide[:, :64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        states.append(wide)
    return states[0], parts[2], states[1], parts[3]


def labels(kind, digit):
    """Return the classes: the digit, or whether it is odd."""
    return digit if kind == "ring" else digit % 2


def logits(kind, values, factor):
    """Return the classes' scores of expectation values, [B, classes]."""
    return factor * values if kind == "ring" else factor * values * np.array([1.0, -1.0])


def expectations(torch, kind, states, angles):
    """Return the observables, float32[B, K]; qubit q is bit q of the index."""
    psi = states.reshape((-1,) + (2,) * QUBITS)
    k = 0
    for name, qubits in gates(kind):
        axis = QUBITS - qubits[0]
        zero, one = psi.select(axis, 0), psi.select(axis, 1)
        if name == "cx":
            other = QUBITS - qubits[1]
            psi = torch.stack([zero, one.flip(other - (1 if other > axis else 0))], dim=axis)
            continue
        cos, sin = torch.cos(angles[k] / 2), torch.sin(angles[k] / 2)
        if name == "ry":
            psi = torch.stack([cos * zero - sin * one, sin * zero + cos * one], dim=axis)
        else:
            turn = torch.complex(cos, sin)
            psi = torch.stack([turn.conj() * zero, turn * one], dim=axis)
        k += 1
    chance = (psi.real**2 + psi.imag**2).reshape(-1, 1 << QUBITS)
    index = torch.arange(1 << QUBITS)
    signs = []
    for text in observables(kind):
        sign = torch.ones(1 << QUBITS)
        for factor in text.split("*"):
            sign = sign * (1 - 2.0 * (index >> int(factor[1:]) & 1))
        signs.append(sign)
    return chance @ torch.stack(signs, dim=1)


def main() -> None:
    import torch

    kind, path = sys.argv[1:3]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y, test, expected = digits(kind)
    y, expected = labels(kind, y), labels(kind, expected)
    x, test = (torch.tensor(a, dtype=torch.complex64) for a in (x, test))
    y = torch.tensor(y)
    count = sum(name != "cx" for name, _ in gates(kind))
    angles = ((0.1 if kind == "cone" else 0.3) * torch.randn(count)).requires_grad_()
    factor = torch.tensor(5.0, requires_grad=True)
    signs = torch.ones(1) if kind == "ring" else torch.tensor([1.0, -1.0])
    steps = 600
    optimiser = torch.optim.Adam([angles, factor], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        rows = torch.randint(0, len(x), (64,))
        scores = factor * expectations(torch, kind, x[rows], angles) * signs
        loss = torch.nn.functional.cross_entropy(scores, y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            with torch.no_grad():
                values = expectations(torch, kind, test, angles).numpy()
            right = logits(kind, values, factor.item()).argmax(1) == expected
            print(step, loss.item(), right.mean(), flush=True)
    final = angles.detach().double().numpy()
    np.savez(path, angles=final, factor=factor.item(), accuracy=right.mean())


if __name__ == "__main__":
    main()
