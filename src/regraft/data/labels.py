"""The spelling of labels and of the names of parts, the same for every source."""

from __future__ import annotations

import re
import unicodedata

from regraft.core.text import printable

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}

LABEL_SEPARATOR = "; "  # between the labels of one image, in one text


def as_label(text: str) -> str:
    """Return a label in its one spelling: composed accents (macOS stores them apart), no surrounding space."""
    return unicodedata.normalize("NFC", printable(text)).strip()


def as_labels(text: str) -> tuple[str, ...]:
    """Return the labels in a text, separated by `;` or `|`, sorted, each once; none for an empty text."""
    return tuple(sorted({label for part in re.split("[;|]", text) if (label := as_label(part))}))
