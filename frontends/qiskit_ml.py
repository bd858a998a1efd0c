"""Qiskit Machine Learning: a ``TorchConnector`` as a module on the operator ``qcomp::circuit``.

The network's circuit is read once. Angles that are affine in data and weights stay in it; others,
such as the products of a ZZ feature map, are computed in torch and enter as parameters of their
own. A ``SamplerQNN``'s interpret function is called once for each bit string, and becomes a matrix.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp import registry
from qcomp.errors import SourceError
from qcomp.frontends.parameter_trees import tree_of
from qcomp.frontends.qiskit_circuit import from_qiskit_with_slots
from qcomp.ir.blocks import walk_items
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.layout import active_wires, relabel
from qcomp.ir.observable import Observable, Pauli
from qcomp.ir.run import Run

if TYPE_CHECKING:
    import torch

__all__ = ["capture_connector", "exact_values"]

_MAX_QUBITS = 24
"""Qubits that a statevector still has a place for."""

_MAX_TABLE = 1 << 22
"""Elements of an interpret function's matrix: 32 MB."""


def capture_connector(
    layer: torch.nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> torch.nn.Module:
    """Return what takes the place of a ``TorchConnector``: same call, same weight, same values.

    Noise of shots is left out. A sparse connector's output is dense here: no graph of ONNX holds
    sparse tensors, and ``to_dense()`` leaves a dense tensor as it is.

    Args:
        layer: A ``qiskit_machine_learning.connectors.TorchConnector``.
        args: Example arguments; nothing here depends on them.
        kwargs: Example keyword arguments.

    Raises:
        SourceError: If the network cannot be captured, with the operation that is in the way.
    """
    from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

    network: Any = layer.neural_network
    where = f"the {type(network).__name__} of a TorchConnector"
    if isinstance(network, (EstimatorQNN, SamplerQNN)) and network.circuit.num_qubits > _MAX_QUBITS:
        raise SourceError(
            f"the circuit of {where} is on {network.circuit.num_qubits} qubits",
            why="its values could not be compared with the original's",
            hint="give the network the circuit before transpile() put it on a machine; the "
            "compiler maps it",
        )
    circuit: Circuit
    shape: tuple[int, ...]
    if isinstance(network, EstimatorQNN):
        circuit, expressions = _circuit_of(network.circuit, where)
        _no_measurement(circuit, where)
        observables = [_observable(o, circuit.num_qubits, where) for o in network.observables]
        used = {q for observable in observables for q in observable.qubits}
        circuit, wire = _without_idle(circuit, used)
        moved = [_on_wires(observable, wire) for observable in observables]
        texts, output, shape = [str(o) for o in moved], None, (len(moved),)
    elif isinstance(network, SamplerQNN):
        circuit, expressions = _circuit_of(network.circuit, where)
        circuit, bits = _final_bits(network.circuit, circuit, where)
        circuit, wire = _without_idle(circuit, set(bits))
        shape = tuple(int(n) for n in network.output_shape)
        texts, output = [], _output_matrix(network, [wire[q] for q in bits], circuit, shape, where)
    else:
        raise SourceError(
            f"a TorchConnector around a {type(network).__name__} cannot be captured",
            hint="EstimatorQNN and SamplerQNN can; or state the circuit by __qcomp_circuit__",
        )
    own = [p.name for p in network.circuit.parameters]
    if not own:
        raise SourceError(
            f"the circuit of {where} has no parameters, so its output is a constant",
            hint="put the constant in the module in place of the network",
        )
    position = {p.name: i for i, p in enumerate((*network.input_params, *network.weight_params))}
    trees = [tree_of(expression, position) for expression in expressions]
    circuit, columns = _ordered(circuit, [position[name] for name in own])
    count = len(network.input_params)
    module = registry.load("services", "captured-connector")(
        circuit,
        layer.weight,
        count,
        inputs=[c for c in columns if c < count],
        weights=[c - count for c in columns if c >= count],
        expressions=trees,
        observables=texts,
        output=output,
        shape=shape,
    )
    module.reference = functools.partial(exact_values, layer)
    result: torch.nn.Module = module
    return result


def exact_values(layer: torch.nn.Module, input_data: torch.Tensor | None = None) -> torch.Tensor:
    """Return what a connector's network gives without noise of shots, float64[..., *shape].

    It runs row by row on Qiskit Machine Learning's exact primitives; the network is not changed.

    Args:
        layer: A ``TorchConnector``.
        input_data: [..., D]; None for a network without data.
    """
    import torch
    from qiskit_machine_learning.neural_networks import EstimatorQNN
    from qiskit_machine_learning.primitives import QMLEstimator, QMLSampler

    network: Any = copy.copy(layer.neural_network)
    network._sparse = False
    if isinstance(network, EstimatorQNN):
        network.estimator = QMLEstimator()
    else:
        network.sampler = QMLSampler()
    weights = layer.weight.detach().cpu().numpy()
    data = np.zeros(0) if input_data is None else input_data.detach().cpu().double().numpy()
    lead = data.shape[:-1]
    rows = data.reshape(math.prod(lead), data.shape[-1])
    values = [np.asarray(network.forward(row, weights))[0] for row in rows]
    return torch.from_numpy(np.array(values).reshape(*lead, *network.output_shape))


def _circuit_of(source: Any, where: str) -> tuple[Circuit, tuple[Any, ...]]:  # noqa: ANN401
    """Return the network's circuit, and its angles that are not affine."""
    from qiskit.exceptions import QiskitError

    try:
        circuit, expressions = from_qiskit_with_slots(source)
    except QiskitError as error:
        raise SourceError(
            f"the circuit of {where} cannot be taken apart",
            why=str(error).strip("'\""),
            hint="a gate whose definition depends on values, such as amplitudes, has no fixed "
            "circuit; encode data by angles",
        ) from error
    for item in walk_items(circuit.body):
        if not isinstance(item, Run):
            raise SourceError(
                f"the circuit of {where} has control flow: '{type(item).__name__.lower()}'",
                hint="a network's circuit is one sequence of gates",
            )
        if (item.code == G.RESET).any():
            raise SourceError(
                f"the circuit of {where} has a 'reset'",
                hint="qubits start in |0>: leave 'initialize' and 'reset' out",
            )
    return circuit, expressions


def _no_measurement(circuit: Circuit, where: str) -> None:
    if any((run.code == G.MEASURE).any() for run in circuit.runs()):
        raise SourceError(
            f"the circuit of {where} has a 'measure'",
            hint="an estimator reads expectation values: leave measurements out",
        )


def _final_bits(source: Any, circuit: Circuit, where: str) -> tuple[Circuit, list[int]]:  # noqa: ANN401
    """Return (circuit without measurements, the qubit that bit i of the sampler's result is)."""
    if not source.clbits:
        return circuit, list(range(circuit.num_qubits))
    run = circuit.run
    measured = run.code == G.MEASURE
    bit_of: dict[int, int] = {}
    after: set[int] = set()
    for i in reversed(range(len(run))):
        if measured[i]:
            qubit, bit = int(run.qubit[i, 0]), int(run.qubit[i, 1])
            if qubit in after or bit in bit_of:
                raise SourceError(
                    f"the circuit of {where} has a 'measure' of qubit {qubit} in the middle",
                    hint="measure once, at the end",
                )
            bit_of[bit] = qubit
        elif run.code[i] != G.BARRIER:
            after.update(run.operands(i))
    registers = [r for r in source.cregs if r.name == "meas"] or source.cregs
    bits = [source.find_bit(bit).index for register in registers for bit in register]
    unread = [bit for bit in bits if bit not in bit_of]
    if unread:
        raise SourceError(
            f"the circuit of {where} never measures into classical bit {unread[0]}",
            hint="measure all qubits by measure_all(), or into registers of the right size",
        )
    return circuit.copy(body=(run.select(~measured),)), [bit_of[bit] for bit in bits]


def _without_idle(circuit: Circuit, read: set[int]) -> tuple[Circuit, dict[int, int]]:
    """Return the circuit without qubits that nothing acts on or reads, and the others' numbers."""
    active = active_wires(circuit)
    active[list(read)] = True
    wire = np.where(active, np.cumsum(active) - 1, -1)
    numbers = {int(q): int(wire[q]) for q in np.flatnonzero(active)}
    if active.all():
        return circuit, numbers
    return relabel(circuit, wire, len(numbers)), numbers


def _ordered(circuit: Circuit, position: Sequence[int]) -> tuple[Circuit, list[int]]:
    """Drop parameters that no angle uses as they are; put data before weights.

    Args:
        circuit: The circuit; parameters that expressions stand for come last.
        position: Place of each of its other parameters among data and weights.

    Returns:
        The circuit, and the place of each of its parameters but the expressions'.
    """
    used = np.zeros(len(circuit.params), dtype=bool)
    used[circuit.forms.col] = True
    kept = sorted((i for i in range(len(position)) if used[i]), key=lambda i: position[i])
    order = [*kept, *range(len(position), len(circuit.params))]
    column = np.full(len(circuit.params), -1, dtype=np.int32)
    column[order] = np.arange(len(order), dtype=np.int32)
    new = circuit.copy(forms=circuit.forms.remap(column))
    new.params = tuple(circuit.params[i] for i in order)
    return new, [position[i] for i in kept]


# --- observables ---------------------------------------------------------------------------


def _observable(source: Any, num_qubits: int, where: str) -> Observable:  # noqa: ANN401
    """Return an observable, of any type that Qiskit's primitives take, as a sum of products."""
    from qiskit.exceptions import QiskitError
    from qiskit.primitives.containers.observables_array import ObservablesArray
    from qiskit.quantum_info import SparsePauliOp

    try:
        operator = SparsePauliOp.from_sparse_observable(ObservablesArray.coerce_observable(source))
    except (QiskitError, TypeError, ValueError) as error:
        raise SourceError(
            f"an observable of {where}, a {type(source).__name__}, is none for an estimator",
            why=str(error).strip("'\""),
            hint="give a SparsePauliOp with real coefficients",
        ) from error
    if operator.num_qubits != num_qubits:
        raise SourceError(
            f"an observable of {where} is on {operator.num_qubits} qubits, the circuit on "
            f"{num_qubits}"
        )
    terms: dict[tuple[tuple[int, Pauli], ...], float] = {}
    for letters, qubits, coefficient in operator.to_sparse_list():
        product = tuple(sorted((q, p) for p, q in zip(letters, qubits, strict=True) if p != "I"))
        terms[product] = terms.get(product, 0.0) + float(coefficient.real)
    return Observable(tuple((value, product) for product, value in terms.items()))


def _on_wires(observable: Observable, wire: Mapping[int, int]) -> Observable:
    return Observable(
        tuple(
            (value, tuple((wire[q], pauli) for q, pauli in product))
            for value, product in observable.terms
        )
    )


# --- interpret functions -------------------------------------------------------------------


def _output_matrix(
    network: Any,  # noqa: ANN401
    wires: Sequence[int],
    circuit: Circuit,
    shape: tuple[int, ...],
    where: str,
) -> NDArray[np.float64] | None:
    """Return what a sampler network makes of the distribution, float64[2^n, prod(shape)].

    Args:
        network: The ``SamplerQNN``.
        wires: The qubit that each bit of the sampler's result is.
        circuit: The circuit that is measured.
        shape: Shape of one output.
        where: The network, for messages.

    Returns:
        The matrix, or None where the output is the distribution itself.
    """
    size = int(np.prod(shape))
    rows = 1 << circuit.num_qubits
    layout = network.circuit.layout
    given = network.interpret
    plain = layout is None and list(wires) == list(range(circuit.num_qubits))
    if (
        plain
        and size == rows
        and getattr(given, "__qualname__", "").endswith(
            "SamplerQNN.set_interpret.<locals>.<lambda>"
        )
    ):
        return None
    if rows * size > _MAX_TABLE:
        raise SourceError(
            f"{where} interprets {rows} bit strings as {size} outputs, which is too much",
            why=f"the table of its interpret function would have {rows * size} elements, "
            f"at most {_MAX_TABLE} are taken",
            hint="fewer qubits or a smaller output_shape",
        )
    states = np.arange(rows)
    keys = np.zeros(rows, dtype=np.int64)
    places = (
        range(len(wires)) if layout is None else layout.final_index_layout(filter_ancillas=True)
    )
    for new, old in enumerate(places):
        keys |= (states >> wires[old] & 1) << new
    matrix = np.zeros((rows, size))
    known: dict[int, int] = {}
    for state, key in enumerate(keys.tolist()):
        if layout is None and key >= 1 << network.num_virtual_qubits:
            continue
        if key not in known:
            known[key] = _interpreted(given, key, shape, where)
        matrix[state, known[key]] = 1.0
    return matrix


def _interpreted(
    function: Callable[[int], object], key: int, shape: tuple[int, ...], where: str
) -> int:
    """Return the place in the flat output that a bit string counts for.

    Raises:
        SourceError: If the function fails or is no function of the bit string alone, or its value
            is no place in the output.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    what = f"the interpret function '{name}' of {where}"
    try:
        value, again = function(key), function(key)
    except Exception as error:  # a user's function may raise anything
        raise SourceError(
            f"{what} fails for {key}",
            why=f"{type(error).__name__}: {error}",
            hint="it is called for every bit string of the circuit, as an integer",
        ) from error
    index = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value,)
    if not all(isinstance(i, Integral) for i in index):
        raise SourceError(
            f"{what} gives {value!r} for {key}, which is no integer",
            hint="it must give the place in the output that a bit string counts for: an integer, "
            "or a tuple of integers",
        )
    if not np.array_equal(np.asarray(value), np.asarray(again)):
        raise SourceError(
            f"{what} gives {value!r} for {key}, and {again!r} the second time",
            hint="it must depend on the bit string alone",
        )
    place = tuple(int(i) for i in index)
    if len(place) != len(shape) or not all(0 <= i < n for i, n in zip(place, shape, strict=True)):
        raise SourceError(
            f"{what} gives {value!r} for {key}, which is not in an output of shape {shape}",
            hint="give the network the output_shape that its interpret function fills",
        )
    return int(np.ravel_multi_index(place, shape))
