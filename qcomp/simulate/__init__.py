"""The batched statevector simulator: exact results, gradients, shots, classical control."""

from __future__ import annotations

from qcomp.simulate.exact import (
    bit_distribution,
    expectations,
    probabilities,
    statevector,
    unitary,
)
from qcomp.simulate.gradients import expectation_gradients, probability_gradients
from qcomp.simulate.readout import measures, run_readout, sample, sampled_expectations
from qcomp.simulate.reference import reference_statevector

__all__ = [
    "bit_distribution",
    "expectation_gradients",
    "expectations",
    "measures",
    "probabilities",
    "probability_gradients",
    "reference_statevector",
    "run_readout",
    "sample",
    "sampled_expectations",
    "statevector",
    "unitary",
]
