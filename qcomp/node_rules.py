"""What the user asks of single operators: leave this one in float, store that one in 4 bits.

| pattern         | matches                                                                |
|-----------------|------------------------------------------------------------------------|
| ``/fc1/MatMul`` | the operator of that name (its first output's name where it has none)  |
| ``*/fc?/*``     | the operators whose names the glob fits; case counts, ``*`` takes ``/`` |
| ``op:MatMul``   | all operators of a type; globs are allowed: ``op:Conv*``               |
| ``sub:/layer.1``| the subgraph: names that start so and end or go on with no letter or digit |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from qcomp.errors import UsageError, suggest

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passmanager import Context

__all__ = ["NodeOptions", "NodeRules", "Override", "name_nodes", "node_name", "rules_of"]

SCHEMES = ("static", "dynamic", "weights", "float")
_OVERRIDE = re.compile(r"(?P<pattern>.+)\{(?P<options>[^{}]*)\}\Z", re.DOTALL)
_EXAMPLE = "'/fc1/MatMul{bits=8,method=mse}'"
_SHOWN = 4
_LARGEST_GROUP = 1 << 20


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What is asked of one operator.

    Attributes:
        excluded: Whether it stays as it is.
        reason: Why: ``excluded by PATTERN``; or by which pattern its options are set; "" if by
            none.
        bits: Bits of its weight; None for what the pass does by itself.
        method: How the range of its input is chosen (``calibrate``), or its weight is rounded.
        scheme: ``static``, ``dynamic`` or ``weights``: the one scheme that may take it; None for
            all.
        group: Weights that share a scale; None for what the pass does by itself.
    """

    excluded: bool = False
    reason: str = ""
    bits: int | None = None
    method: str | None = None
    scheme: str | None = None
    group: int | None = None

    def refusal(self, scheme: str) -> str:
        """Why a pass of that scheme has to leave the operator alone; "" when it need not."""
        if self.excluded:
            return self.reason
        if self.scheme is not None and self.scheme != scheme:
            return f"{self.reason}: it is not for the scheme '{scheme}'"
        return ""


@dataclass(frozen=True, slots=True)
class Override:
    """Options of the operators that a pattern matches; None leaves one as it is.

    Attributes:
        pattern: Which operators.
        bits: Bits of the weight.
        method: How the range is chosen.
        scheme: Which passes may take it.
        reason: Why, where a pass and not the user asks for it.
        group: Weights that share a scale, where they lie in blocks.
    """

    pattern: str
    bits: int | None = None
    method: str | None = None
    scheme: str | None = None
    reason: str = ""
    group: int | None = None

    @staticmethod
    def parse(text: str) -> Override:
        """Read ``PATTERN{bits=4,method=mse,scheme=static}``.

        Raises:
            UsageError: If it is no such text.
        """
        match = _OVERRIDE.match(text.strip())
        if match is None:
            raise UsageError(f"'{text}' is no override", hint=f"write {_EXAMPLE}")
        override = Override(match["pattern"].strip())
        for part in filter(None, (item.strip() for item in match["options"].split(","))):
            key, equals, value = (word.strip() for word in part.partition("="))
            if not equals or not value:
                raise UsageError(f"'{part}' in '{text}' is no option", hint=f"write {_EXAMPLE}")
            if key == "bits":
                if not value.isdecimal() or len(value) > 2:
                    raise UsageError(f"'{text}': bits is no number", hint="bits=8, 7 or 4")
                override = replace(override, bits=int(value))
            elif key == "group":
                if not value.isdecimal() or not 1 <= int(value) <= _LARGEST_GROUP:
                    raise UsageError(f"'{text}': group is no number of weights", hint="group=32")
                override = replace(override, group=int(value))
            elif key == "method":
                override = replace(override, method=value)
            elif key == "scheme":
                if value not in SCHEMES:
                    raise UsageError(
                        f"'{text}': there is no scheme '{value}'", hint=suggest(value, SCHEMES)
                    )
                override = replace(override, scheme=value)
            else:
                raise UsageError(
                    f"'{text}': there is no option '{key}'",
                    hint=suggest(key, ("bits", "group", "method", "scheme")),
                )
        if override == Override(override.pattern):
            raise UsageError(f"'{text}' overrides nothing", hint=f"write {_EXAMPLE}")
        return override


@dataclass(frozen=True, slots=True)
class NodeRules:
    """What is asked of the operators of a graph.

    Attributes:
        exclude: Patterns of operators that stay as they are.
        include: Patterns of the only operators that may be quantized; all where it is empty.
        override: Options by pattern; a later one wins.
        origins: Name and type of an operator -> those of the one of the source that it was made
            of; patterns that match that one match it, too.
    """

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    override: tuple[Override, ...] = ()
    origins: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    @staticmethod
    def parse(
        exclude: Sequence[str] = (), include: Sequence[str] = (), override: Sequence[str] = ()
    ) -> NodeRules:
        """Read patterns and overrides; one text counts as a list of one.

        Raises:
            UsageError: If an override cannot be read, or a pattern is empty.
        """
        texts = [(part,) if isinstance(part, str) else tuple(part) for part in (exclude, include)]
        for pattern in (*texts[0], *texts[1]):
            if not pattern.strip():
                raise UsageError("a pattern is empty", hint="--exclude '/fc1/*' or op:MatMul")
            if _OVERRIDE.match(pattern):
                raise UsageError(f"the pattern '{pattern}' has options", hint="use --override")
        overrides = (override,) if isinstance(override, str) else override
        return NodeRules(texts[0], texts[1], tuple(Override.parse(text) for text in overrides))

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return bool(self.exclude or self.include or self.override)

    def joined(self, other: NodeRules) -> NodeRules:
        """Return these rules and the other ones, which win."""
        return NodeRules(
            self.exclude + other.exclude,
            self.include + other.include,
            self.override + other.override,
            {**self.origins, **other.origins},
        )

    def made_of(self, origin: tuple[str, str], made: Iterable[ir.Node]) -> NodeRules:
        """Return rules by which operators are also known as the one whose place they take.

        Args:
            origin: Name and type of that one.
            made: The operators.
        """
        keys = [(node_name(new), new.op_type) for new in made]
        news = {key: origin for key in keys if key != origin}
        return replace(self, origins={**self.origins, **news}) if self and news else self

    def matches(self, pattern: str, name: str, op_type: str) -> bool:
        """Whether a pattern means the operator of that name and type, or what it was made of."""
        known: tuple[str, str] | None = (name, op_type)
        while known is not None:
            if _matches(pattern, *known):
                return True
            known = self.origins.get(known)
        return False

    def refusal(self, node: ir.Node) -> str:
        """``excluded by PATTERN``; "" for an operator that is not excluded by name.

        Operators that only follow a layer (Relu, Reshape) need not be among the included ones.
        """
        return self._refusal(node_name(node), node.op_type)

    def options(self, node: ir.Node) -> NodeOptions:
        """What is asked of an operator."""
        return self.options_of(node_name(node), node.op_type)

    def options_of(self, name: str, op_type: str) -> NodeOptions:
        """What is asked of the operator of that name and type."""
        reason = self._refusal(name, op_type)
        if not reason and self.include:
            if not any(self.matches(pattern, name, op_type) for pattern in self.include):
                reason = f"not among the included {', '.join(self.include)}"
        if reason:
            return NodeOptions(True, reason)
        found = NodeOptions()
        for override in self.override:
            if self.matches(override.pattern, name, op_type):
                given = {
                    key: value
                    for key in ("bits", "group", "method", "scheme")
                    if (value := getattr(override, key)) is not None
                }
                text = ", ".join(f"{key}={value}" for key, value in given.items())
                why = override.reason or f"{text} by {override.pattern}"
                found = replace(found, reason=why, **given)
        if found.scheme == "float":
            return NodeOptions(True, found.reason)
        return found

    def check(self, nodes: Iterable[ir.Node]) -> None:
        """Refuse patterns that match none of the operators.

        Raises:
            UsageError: Says the nearest names.
        """
        known = [(node_name(node), node.op_type) for node in nodes]
        for pattern in (*self.exclude, *self.include, *(o.pattern for o in self.override)):
            if not any(_matches(pattern, *entry) for entry in known):
                raise UsageError(
                    f"the pattern '{pattern}' matches no operator of the graph",
                    hint=_nearest(pattern, known),
                )

    def _refusal(self, name: str, op_type: str) -> str:
        found = next((p for p in self.exclude if self.matches(p, name, op_type)), None)
        return "" if found is None else f"excluded by {found}"


def rules_of(context: Context) -> NodeRules:
    """Return the rules of a compile; empty ones where nothing was asked."""
    return context.get(NodeRules) or NodeRules()


def node_name(node: ir.Node) -> str:
    """Return the name that patterns see: the operator's, else its first output's."""
    return node.name or next((v.name for v in node.outputs if v.name), None) or node.op_type


def name_nodes(graph: ir.Graph) -> None:
    """Give every operator of a graph a name of its own, the one that patterns see."""
    taken: set[str] = set()
    for node in graph:
        base = name = node_name(node)
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        if node.name != name:
            node.name = name


def _matches(pattern: str, name: str, op_type: str) -> bool:
    if pattern == name:
        return True
    if pattern.startswith("op:"):
        return fnmatchcase(op_type, pattern[3:])
    if pattern.startswith("sub:"):
        start = pattern[4:]
        rest = name[len(start) :]
        inside = not rest or not rest[0].isalnum() or not start[-1:].isalnum()
        return bool(start) and name.startswith(start) and inside
    return fnmatchcase(name, pattern)


def _nearest(pattern: str, known: Sequence[tuple[str, str]]) -> str:
    """Return a hint with the names that are nearest to a pattern."""
    if pattern.startswith("op:"):
        names = sorted({f"op:{op_type}" for _, op_type in known})
    else:
        names = list(dict.fromkeys(name for name, _ in known))
    hint = suggest(re.sub(r"[*?\[\]]|^sub:", "", pattern) or pattern, names) if names else ""
    if hint.startswith("did you mean"):
        return hint
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return f"names are {shown or 'none'} ...; 'qcomp inspect MODEL --nodes' lists them"
