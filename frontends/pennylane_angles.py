"""Angles of a QNode as expressions of its arguments: elements, affine forms, or anything else.

Which an angle is, is found by numbers, the arguments drawn at random twice. An angle that equals an
argument's element in both draws is that element. One whose gradients by the arguments agree in
both, and which these gradients predict, is affine. Any other is a slot: a parameter of its own,
computed in torch. A plain number that changes between the draws was computed from data outside of
torch, and cannot be kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from qcomp.ir.angle import Angle, Parameter

__all__ = ["Leaf", "Slot", "angle_forms", "identifier"]

_MAX_TERMS = 64
"""Elements that an affine angle may depend on; one with more is computed outside of the circuit."""

_CLOSE = 1e-11
"""How well an affine form must predict an angle, relative to the size of its terms."""


@dataclass(eq=False)
class Leaf:
    """A floating-point tensor among the arguments.

    Attributes:
        position: Its number among all leaves of the arguments.
        name: Its name, made from the argument's.
        draws: Its values in the two draws, float64 with gradients.
        batched: Whether its first axis is the batch; None while no angle has shown it.
        used: Element (of a row, where it is batched) that an angle takes -> its parameter's name.
    """

    position: int
    name: str
    draws: tuple[torch.Tensor, torch.Tensor]
    batched: bool | None = None
    used: dict[int, str] = field(default_factory=dict)

    def rows(self, which: int, batched: bool) -> torch.Tensor:
        """Return a draw as rows [B, N] where the first axis is the batch, else as one row."""
        values = self.draws[which].detach()
        return values.reshape(len(values), -1) if batched else values.reshape(1, -1)

    def parameter(self, element: int, batched: bool) -> Angle:
        """Return an element as a parameter; it is used from now on."""
        self.batched = batched
        if element not in self.used:
            shape = tuple(self.draws[0].shape[1:] if batched else self.draws[0].shape)
            index = np.unravel_index(element, shape) if shape else ()
            self.used[element] = "_".join([self.name, *(str(int(i)) for i in index)])
        return Parameter(self.used[element])

    def names(self) -> list[str]:
        """Return the names of the parameters in the order of their elements."""
        return [self.used[element] for element in sorted(self.used)]

    def input_of(self, value: torch.Tensor) -> torch.Tensor:
        """Return the operator's input: the used elements, [B, used] or [used], in float64."""
        if not self.batched:
            flat = value.reshape(-1)
        else:
            flat = value[:, None] if value.dim() == 1 else value.flatten(1)
        columns = sorted(self.used)
        # By shapes alone: what is computed here becomes part of an exported graph.
        shape = self.draws[0].shape[1:] if self.batched else self.draws[0].shape
        if columns != list(range(math.prod(shape))):
            flat = flat.index_select(-1, torch.tensor(columns, device=flat.device))
        return flat.double()


@dataclass(frozen=True, slots=True)
class Slot:
    """An angle that is computed in torch.

    Attributes:
        place: Its number among all angles of the circuit.
        batched: Whether it has one value for each row.
    """

    place: int
    batched: bool


def identifier(text: str) -> str:
    """Return a name that the text becomes as an identifier."""
    name = re.sub(r"\W+", "_", text).strip("_") or "p"
    return name if name.isidentifier() else f"p{name}"


def angle_forms(
    first: Sequence[object], second: Sequence[object], leaves: Sequence[Leaf]
) -> list[Angle | Slot | None]:
    """Return each angle as an affine form of parameters, or as a slot.

    Args:
        first: The angles of the first draw: numbers, or tensors [] or [B].
        second: Those of the second.
        leaves: The arguments; the elements that angles take are marked as used.

    Returns:
        One for each angle; None for a number that is not the same in both draws, and for an array
        of numbers.
    """
    elements = _elements(leaves)
    out: list[Angle | Slot | None] = []
    for place, (one, two) in enumerate(zip(first, second, strict=True)):
        if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
            form = _element(one, two, elements) or _affine(one, two, leaves)
            out.append(form or Slot(place, one.dim() > 0))
        elif isinstance(one, torch.Tensor) or isinstance(two, torch.Tensor) or _is_array(one):
            out.append(None)
        else:
            a, b = complex(one).real, complex(two).real  # type: ignore[call-overload]  # numbers
            out.append(Angle.of(a) if a == b else None)
    return out


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0


def _elements(leaves: Sequence[Leaf]) -> dict[float, list[tuple[Leaf, int]]]:
    """Return value in the first draw -> the elements that have it."""
    table: dict[float, list[tuple[Leaf, int]]] = {}
    for leaf in leaves:
        for element, value in enumerate(leaf.rows(0, batched=False)[0].tolist()):
            table.setdefault(value, []).append((leaf, element))
    return table


def _element(
    one: torch.Tensor, two: torch.Tensor, elements: dict[float, list[tuple[Leaf, int]]]
) -> Angle | None:
    batched = one.dim() > 0
    if not one.numel() or one.dim() > 1:
        return None
    for leaf, element in elements.get(float(one.detach().reshape(-1)[0]), ()):
        if leaf.batched not in (None, batched):
            continue
        if batched and (not leaf.draws[0].dim() or len(leaf.draws[0]) != len(one)):
            continue
        rows = [leaf.rows(which, batched) for which in (0, 1)]
        if element < rows[0].shape[1] and all(
            torch.equal(values.detach().reshape(-1), row[:, element])
            for values, row in zip((one, two), rows, strict=True)
        ):
            return leaf.parameter(element, batched)
    return None


def _affine(one: torch.Tensor, two: torch.Tensor, leaves: Sequence[Leaf]) -> Angle | None:
    """Return the affine form of an angle, if its gradients are the same in both draws."""
    batched = one.dim() > 0
    if one.dim() > 1 or not _knows_all(one, leaves):
        return None
    rows = len(one) if batched else 1
    found: list[tuple[Leaf, int, float, bool]] = []
    gradients = [_gradients(values, leaves, which) for which, values in enumerate((one, two))]
    rest = [values.detach().reshape(-1).clone() for values in (one, two)]
    size = [values.abs().clone() for values in rest]
    for leaf, *pair in zip(leaves, *gradients, strict=True):
        if pair[0] is None or pair[1] is None:
            if pair[0] is not pair[1]:
                return None
            continue
        shape = leaf.draws[0].shape
        by_row = leaf.batched
        if by_row is None:
            by_row = batched and bool(shape) and shape[0] == rows
        if by_row and not batched:
            return None
        slopes = [
            g.reshape(rows, -1) if by_row else g.reshape(1, -1) / rows
            for g in pair
            if g is not None
        ]
        slope = slopes[0][0]
        if not all(torch.allclose(s, slope.expand_as(s), rtol=1e-12, atol=0) for s in slopes):
            return None
        for which in (0, 1):
            product = leaf.rows(which, by_row) * slope
            rest[which] -= product.sum(-1)
            size[which] += product.abs().sum(-1)
        for element in slope.nonzero().reshape(-1).tolist():
            found.append((leaf, element, float(slope[element]), by_row))
    constant = float(rest[0][0])
    limit = _CLOSE * max(1.0, *(float(values.max()) for values in size))
    spread = max(float((values - constant).abs().max()) for values in rest)
    if not found or len(found) > _MAX_TERMS or not spread <= limit or math.isnan(constant):
        return None
    angle = Angle.of(_tidy(constant, limit))
    for leaf, element, factor, by_row in found:
        angle = angle + leaf.parameter(element, by_row) * factor
    return angle


def _tidy(constant: float, limit: float) -> float:
    """Return the shortest decimal or multiple of pi/16 within the error of a constant."""
    for near in (round(constant / math.pi * 16) * math.pi / 16, round(constant, 6)):
        if abs(near - constant) <= limit:
            return near
    return constant


def _gradients(
    values: torch.Tensor, leaves: Sequence[Leaf], which: int
) -> list[torch.Tensor | None]:
    """Return the gradient of an angle, summed over rows, by each leaf."""
    if not values.requires_grad:
        return [None] * len(leaves)
    draws = [leaf.draws[which] for leaf in leaves]
    return list(torch.autograd.grad(values.sum(), draws, retain_graph=True, allow_unused=True))


def _knows_all(values: torch.Tensor, leaves: Sequence[Leaf]) -> bool:
    """Whether an angle depends on no trained tensor but the arguments."""
    if values.grad_fn is None:
        return values.requires_grad
    known = {id(leaf.draws[0]) for leaf in leaves}
    seen: set[object] = set()
    todo = [values.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            return False
        todo += [parent for parent, _ in node.next_functions]
    return True
