"""The spelling of labels and of the names of parts, the same for every source."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from regraft.core.errors import DataError
from regraft.core.text import count, printable

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}

LABEL_SEPARATOR = "; "  # between the labels of one image, in one text


_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")  # zero-width spaces


def as_label(text: str) -> str:
    """Return a label in its one spelling: composed accents (macOS stores them apart), single spaces, none around it."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", printable(_INVISIBLE.sub("", text)))).strip()


def check_spellings(counts: Mapping[str, int], source: str) -> None:
    """Raise DataError if labels differ only in case, in spaces or in the form of letters; single letters may.

    counts: how many images each label has.
    """
    spellings: dict[str, str] = {}
    for label in counts:
        key = "".join(unicodedata.normalize("NFKC", label).casefold().split())
        other = spellings.setdefault(key, label) if len(label) > 1 else label
        if other != label:
            raise DataError(
                f"{source} has the classes {other!r} ({count(counts[other], 'image')}) and {label!r} "
                f"({count(counts[label], 'image')}), which differ only in case, spaces or the form of a letter. "
                "Give both the same name if they are one class, and names that differ in more if they are two."
            )


def as_labels(text: str) -> tuple[str, ...]:
    """Return the labels in a text, separated by `;` or `|`, sorted, each once; none for an empty text."""
    return tuple(sorted({label for part in re.split("[;|]", text) if (label := as_label(part))}))
