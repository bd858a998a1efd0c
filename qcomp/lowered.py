"""Facts about layers that became circuits: what each costs before anyone runs it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LoweredLayer", "LoweredLayers"]


@dataclass(frozen=True, slots=True)
class LoweredLayer:
    """One layer that was lowered.

    Attributes:
        node: Name of the operator whose place was taken.
        op_type: Its type.
        method: The method.
        output: Name of the value that the layer gives now.
        circuits: Names of its circuits.
        qubits: Qubits of the widest circuit.
        two_qubit: Two-qubit gates of the circuits together, before they are optimised.
        depth: Depth of the deepest circuit, before it is optimised.
        runs: Circuits that one row of the layer's input takes.
        settings: Circuits and bases they are measured in, for one row: what a device has to run.
        restores: How sign and norm come back.
        exact: Whether the layer computes the same as before.
        remark: What else the user should know.
    """

    node: str
    op_type: str
    method: str
    output: str
    circuits: tuple[str, ...]
    qubits: int
    two_qubit: int
    depth: int
    runs: int
    settings: int
    restores: str
    exact: bool
    remark: str = ""

    @property
    def sentence(self) -> str:
        """The cost in one sentence."""
        if not self.circuits:
            return f"{self.op_type} '{self.node}' by {self.method}: no circuit. {self.remark}"
        text = (
            f"{self.op_type} '{self.node}' by {self.method}: {self.qubits} qubits, "
            f"{self.two_qubit} two-qubit gates, depth {self.depth}; "
            f"{self.runs} circuits and {self.settings} measurement settings a row; {self.restores}"
        )
        return f"{text}. {self.remark}" if self.remark else text


@dataclass(frozen=True, slots=True)
class LoweredLayers:
    """All layers that were lowered, in order."""

    layers: tuple[LoweredLayer, ...] = ()
