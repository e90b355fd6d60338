"""The spelling of labels and parts, the same for every source."""

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
    """Return the label's one spelling: composed accents (a Mac's archive has them apart), no space around it."""
    return unicodedata.normalize("NFC", printable(text)).strip()


def as_labels(text: str) -> tuple[str, ...]:
    """Return the labels in a text with `;` or `|` between them, each once and by name; none in an empty one."""
    return tuple(sorted({label for part in re.split("[;|]", text) if (label := as_label(part))}))
