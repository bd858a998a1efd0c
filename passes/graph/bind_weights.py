"""bind-weights: trained weights of a quantum node become numbers in its circuit."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcomp.binding import Binding, BoundCircuits
from qcomp.errors import PassError
from qcomp.ir.program import Program, make_circuit_node, readout_of
from qcomp.passes.graph.rewriting import Editor, constant_array, node_label, static_shape
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.circuit import Circuit

    _Found = tuple[dict[str, float], list[int]]

__all__ = ["BindWeights", "input_widths"]


@dataclass(frozen=True)
class BindWeights(GraphPass):
    """Put the trained weights of quantum nodes into their circuits as numbers.

    ::

        Circuit(x, w) with parameters (x, w)  ->  Circuit'(x),  Circuit' = Circuit with w bound

    Rotations by trained angles then meet: ``RZ(w1) RZ(w2)`` is one number, a run of one-qubit
    gates between two data angles is one gate. Data parameters stay free. A circuit that several
    nodes run with different weights becomes one circuit for each of them.

    Preconditions: an input is an initializer without a batch axis, and its width is known.

    Preserves: the outputs up to float64 rounding of sums of angles.

    Cost: linear in the circuits' gates, once for each node.

    Source: constant folding, applied to the affine angles of ``docs/architecture.md``.
    """

    name: ClassVar[str] = "bind-weights"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    def run(self, program: Program, context: Context) -> bool:
        """Bind the weights of every node that has some; return whether there were any.

        Raises:
            PassError: If a weight is not finite or a node's inputs do not fit its circuit.
        """
        found = {node: _weights(program, node) for node in program.all_circuit_nodes()}
        if not any(values for values, _ in found.values()):
            return False
        names = _names(program, found)
        bindings: dict[str, Binding] = {}
        circuits: dict[str, Circuit] = {}
        for node, (values, left) in found.items():
            source, name = _circuit_name(node), names[node]
            if name not in circuits:
                circuits[name] = program.circuits[source].bind(values)
                circuits[name].name = name
                bindings[name] = Binding(source, values)
            if values:
                assert node.graph is not None
                _replace(Editor(program.model, node.graph), node, name, left)
        program.circuits.clear()
        program.circuits.update(circuits)
        context.put(BoundCircuits(bindings))
        return True


def _circuit_name(node: ir.Node) -> str:
    return node.attributes["circuit"].as_string()


def _names(program: Program, found: Mapping[ir.Node, _Found]) -> dict[ir.Node, str]:
    """Return the name of each node's bound circuit: its own unless nodes bind it differently."""
    versions: dict[str, list[dict[str, float]]] = {}
    for node, (values, _) in found.items():
        known = versions.setdefault(_circuit_name(node), [])
        if values not in known:
            known.append(values)
    names: dict[ir.Node, str] = {}
    taken = set(program.circuits)
    fresh: dict[tuple[str, int], str] = {}
    for node, (values, _) in found.items():
        source = _circuit_name(node)
        which = versions[source].index(values)
        if (source, which) not in fresh:
            tries = (f"{source}_{i}" for i in itertools.count(2))
            fresh[source, which] = source if not which else next(n for n in tries if n not in taken)
            taken.add(fresh[source, which])
        names[node] = fresh[source, which]
    return names


def input_widths(program: Program, node: ir.Node) -> list[int] | None:
    """Return how many parameters each input of a quantum node holds; None if that is not known.

    Raises:
        PassError: If they do not fit the circuit.
    """
    circuit = program.circuit_of(node)
    arrays = [constant_array(value) for value in node.inputs]
    widths = [
        array.shape[-1] if array is not None and array.ndim else _width(value)
        for array, value in zip(arrays, node.inputs, strict=True)
    ]
    unknown = [i for i, width in enumerate(widths) if width is None]
    known = sum(width for width in widths if width is not None)
    if len(unknown) > 1:
        return None
    if unknown:
        widths[unknown[0]] = circuit.num_params - known
    elif known != circuit.num_params:
        raise PassError(
            f"the inputs of '{node_label(node)}' have {known} values together, "
            f"its circuit has {circuit.num_params} parameters",
            where=f"node '{node_label(node)}'",
        )
    return [width for width in widths if width is not None]


def _weights(program: Program, node: ir.Node) -> _Found:
    """Return (parameter name -> trained value, positions of the inputs that stay)."""
    widths = input_widths(program, node)
    if widths is None:
        return {}, []
    circuit = program.circuit_of(node)
    arrays = [constant_array(value) for value in node.inputs]
    values: dict[str, float] = {}
    left: list[int] = []
    start = 0
    for position, (array, width) in enumerate(zip(arrays, widths, strict=True)):
        names = circuit.params[start : start + width]
        start += width
        if array is None or array.size != width:
            left.append(position)
            continue
        if not np.isfinite(array.astype(np.float64)).all():
            raise PassError(f"a weight of '{node_label(node)}' is not finite")
        values |= dict(zip(names, array.astype(np.float64).ravel().tolist(), strict=True))
    return values, left


def _width(value: ir.Value | None) -> int | None:
    shape = static_shape(value)
    return shape[-1] if shape else None


def _replace(editor: Editor, node: ir.Node, circuit: str, left: list[int]) -> None:
    """Put a node that runs the bound circuit in the place of ``node``."""
    old = node.outputs[0]
    inputs = [value for i in left if (value := node.inputs[i]) is not None]
    new = make_circuit_node(circuit, readout_of(node), inputs, name=node.name or circuit)
    output = new.outputs[0]
    output.name, output.type, output.shape = old.name, old.type, old.shape
    editor.graph.insert_before(node, new)
    editor.replace_value(old, output)
    editor.remove(node)
