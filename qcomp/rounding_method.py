"""``--method``: how the weights of a target's pipeline are rounded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qcomp.errors import UsageError, suggest

if TYPE_CHECKING:
    from qcomp.target import Target

__all__ = ["METHODS", "with_method"]

METHODS = {
    "auto": "choose-method",
    "gptq": "gptq",
    "gptaq": "gptaq",
    "gpfq": "gpfq",
    "rounding": "",
}
"""Word -> the pass that chooses integers; "" for none."""

_CHOOSING = re.compile(r"(choose-method|gptq|gptaq|gpfq)(\{(?P<options>[^}]*)\})?\s*,\s*")
_STORING = re.compile(r"quantize-(embeddings|weights|static)\b")
_OWN = ("order", "needs_data", "damping")
"""Options that only some of the passes have, or that say what happens without data."""


def with_method(text: str | None, method: str, graph: Target | None, effort: str) -> str:
    """Return a pipeline's text in which a method chooses the integers of weights.

    Passes that do so by now give it their options; where there is none, it stands before the first
    pass that quantizes.

    Args:
        text: The pipeline; the target's, if it is None.
        method: One of :data:`METHODS`.
        graph: The target of the graph.
        effort: Which of the target's pipelines.

    Raises:
        UsageError: Another word, a source without a graph, or a pipeline that stores no weights.
    """
    if graph is None:
        raise UsageError(
            "the source has no classical graph whose weights could be rounded",
            hint="leave --method out",
        )
    if method not in METHODS:
        raise UsageError(f"there is no method '{method}'", hint=suggest(method, list(METHODS)))
    text = graph.pipeline(effort) if text is None else text
    storing = _STORING.search(text)
    if storing is None:
        raise UsageError(
            "the pipeline stores no weights that a method could round",
            hint="take -t cpu-int4, or leave --method out",
        )
    name = METHODS[method]

    def replaced(found: re.Match[str]) -> str:
        given = [part.strip() for part in (found["options"] or "").split(",")]
        kept = [part for part in given if part and part.partition("=")[0] not in _OWN]
        options = f"{{{','.join(kept)}}}" if kept else ""
        return f"{name}{options}," if name else ""

    if _CHOOSING.search(text):
        return _CHOOSING.sub(replaced, text)
    return text[: storing.start()] + (f"{name}," if name else "") + text[storing.start() :]
