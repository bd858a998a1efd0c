"""Iterative amplitude estimation on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcomp.constructions.grover import Marked, grover_operator, marked_states, power
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Readout
from qcomp.runtime.devices import run_on

__all__ = ["AmplitudeEstimate", "estimate_amplitude", "proportion_interval"]

_RATIO = 2
"""Least factor by which K = 4 k + 2 grows from one k to the next."""

_FINEST = 1e-6


@dataclass(frozen=True, slots=True)
class AmplitudeEstimate:
    """A probability that was estimated by amplifying it.

    Attributes:
        value: The middle of the interval.
        low: Lower end of the confidence interval.
        high: Upper end.
        confidence: Least probability with which the interval holds the true value.
        oracle_calls: Uses of Grover's operator in all shots.
        preparations: Uses of the preparation or its inverse in all shots, the operator's included.
        shots: Shots of all rounds.
        powers: k of each round.
        two_qubit: Two-qubit gates of the largest circuit that ran.
        depth: Depth of that circuit.
    """

    value: float
    low: float
    high: float
    confidence: float
    oracle_calls: int
    preparations: int
    shots: int
    powers: tuple[int, ...]
    two_qubit: int
    depth: int


def estimate_amplitude(
    preparation: Circuit,
    good: Marked,
    accuracy: float = 0.01,
    confidence: float = 0.95,
    *,
    shots: int = 100,
    device: str = "sim",
    seed: int = 0,
) -> AmplitudeEstimate:
    """Estimate ``a``, the probability that ``A |0>`` is measured in a good state.

    With ``a = sin(theta)^2`` and ``K = 4 k + 2`` the state ``Q^k A |0>`` is good with probability
    ``(1 - cos(K theta)) / 2``. Each round takes the largest k for which K times the interval of
    theta lies in one half of the circle, so that the measured share has one angle, and cuts the
    interval by the share's (Grinko, Gacon, Zoufal, Woerner 2019, arXiv:1912.05559, algorithms 1
    and 2).

    The interval is Clopper's and Pearson's, wrong in round j of one k with probability at most
    ``(1 - confidence) / 2 * K / K_max * 6 / (pi j)^2``, ``K_max = pi / (2 accuracy)``. K doubles at
    least, so the sum over all k and all looks at the growing shots of each is at most
    ``1 - confidence`` (larger shares for larger K: Fukuzawa, Ho, Irani, Zion 2022,
    arXiv:2208.14612).

    Cost: of the order of ``log(1 / (1 - confidence)) / accuracy`` uses of Q, where direct sampling
    takes ``1 / accuracy^2`` preparations.

    Args:
        preparation: A, a unitary circuit without free parameters.
        good: Bits of qubits such as ``{3: 1}``, numbers of basis states, or a predicate of an
            array of numbers.
        accuracy: Half the width of the interval at most, 1e-6 to 0.5.
        confidence: Least probability with which the interval holds a.
        shots: Shots of a round.
        device: A key of ``DEVICES``; the interval holds without noise.
        seed: Seed of the shots.

    Raises:
        UsageError: If a number makes no sense, the circuit has free parameters or is not unitary,
            nothing or everything is good, or rounds contradict one another.
    """
    _check(preparation, accuracy, confidence, shots)
    marked = marked_states(good, preparation.num_qubits)
    operator = grover_operator(preparation, good)
    largest = math.pi / (2 * accuracy)
    low, high = 0.0, 0.25  # theta / (2 pi)
    k, upper, looks, hits = 0, True, 0, 0
    powers: list[int] = []
    circuit, readout = preparation, Readout("probs", shots=shots)
    while _chance(high) - _chance(low) > 2 * accuracy:
        found, upper = _next(k, upper, low, high)
        if found != k:
            k, looks, hits = found, 0, 0
            circuit = preparation.compose(power(operator, k))
        draw = int(np.random.SeedSequence((seed, len(powers))).generate_state(1)[0]) >> 1
        powers.append(k)
        shares = run_on(device, circuit, readout, np.zeros((1, 0)), None, draw)
        hits += round(float(np.asarray(shares, dtype=np.float64).reshape(-1)[marked].sum()) * shots)
        looks += 1
        big = 4 * k + 2
        wrong = (1 - confidence) / 2 * big / largest * 6 / (math.pi * looks) ** 2
        below, above = proportion_interval(hits, looks * shots, wrong)
        first, last = (math.acos(1 - 2 * share) / (2 * math.pi) for share in (below, above))
        if not upper:
            first, last = 1 - last, 1 - first
        low = max(low, (int(big * low) + first) / big)
        high = min(high, (int(big * high) + last) / big)
        if low >= high:
            raise UsageError(
                f"the rounds of amplitude estimation contradict one another at k = {k}",
                why=f"the device has noise, or what has probability {1 - confidence:.2g} happened",
                hint="estimate with a higher confidence, or without noise",
            )
    a, b = _chance(low), _chance(high)
    calls = shots * sum(powers)
    total = shots * len(powers)
    stats = circuit.stats()
    return AmplitudeEstimate(
        (a + b) / 2, a, b, confidence, calls, 2 * calls + total, total, tuple(powers),
        stats.two_qubit, stats.depth,
    )  # fmt: skip


def proportion_interval(hits: int, taken: int, wrong: float) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson for a probability.

    Args:
        hits: How often it came.
        taken: Of how many times.
        wrong: Probability at most that the interval does not hold the true value.
    """
    from scipy.stats import beta

    below = 0.0 if hits == 0 else float(beta.ppf(wrong / 2, hits, taken - hits + 1))
    above = 1.0 if hits == taken else float(beta.ppf(1 - wrong / 2, hits + 1, taken - hits))
    return below, above


def _chance(turn: float) -> float:
    return math.sin(2 * math.pi * turn) ** 2


def _check(circuit: Circuit, accuracy: float, confidence: float, shots: int) -> None:
    if circuit.num_params:
        raise UsageError(
            f"the preparation '{circuit.name}' has free parameters "
            + ", ".join(circuit.params[:8]),
            hint="bind them: circuit.bind({...})",
        )
    if not _FINEST <= accuracy <= 0.5:
        raise UsageError(f"an accuracy is {_FINEST:g} to 0.5, not {accuracy}")
    if not 0 < confidence < 1:
        raise UsageError(f"a confidence is between 0 and 1, not {confidence}")
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise UsageError(f"the number of shots is {shots!r}", hint="give a whole number above 0")


def _next(k: int, upper: bool, low: float, high: float) -> tuple[int, bool]:
    """Return the largest k whose angles lie in one half of the circle, and in which (FindNextK)."""
    now = 4 * k + 2
    most = int(1 / (2 * (high - low)))
    big = most - (most - 2) % 4
    while big >= _RATIO * now:
        first, last = big * low, big * high
        if int(first) == int(last):
            if last - int(last) <= 0.5:
                return (big - 2) // 4, True
            if first - int(first) >= 0.5:
                return (big - 2) // 4, False
        big -= 4
    return k, upper
