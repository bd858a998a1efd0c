"""Files beside a language model that belong to it: its tokenizer and its configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["COMPANIONS", "copy_companions"]

COMPANIONS = (
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.*",
)
"""Names, as Hugging Face's libraries look for them."""


def copy_companions(source: str | Path, folder: Path) -> list[Path]:
    """Copy what stands beside a model's file into a folder.

    Args:
        source: The model's file; anything else has nothing beside it.
        folder: Where the model was compiled to.

    Returns:
        The files there.
    """
    if not source or len(str(source)) >= 4096 or not Path(source).is_file():
        return []
    found: list[Path] = []
    for pattern in COMPANIONS:
        for path in sorted(Path(source).parent.glob(pattern)):
            if path.is_file() and not (folder / path.name).exists():
                found.append(Path(shutil.copyfile(path, folder / path.name)))
    return found
