"""What a source loses before anything is computed: classes without images, pictures without labels, broken files.

An index as it was read enters; sentences that a person can act on leave, or
an error if too much of it is broken. `inspect` shows the same sentences that
training is preceded by.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from regraft.core.errors import DataError
from regraft.core.options import Options, option, require
from regraft.core.text import count, listed, listed_lines
from regraft.data.index import PARTS, Index, Row
from regraft.data.sources._layout import EMPTY_FOLDER, UNLABELLED

SHOWN_FILES = 20
OTHER_LABEL = "the same picture is labelled "

FEW = 3  # broken files that may be left out of a small source, if they are not more than a tenth


@dataclass(frozen=True, kw_only=True)
class BrokenOptions(Options):
    """How many images may be broken."""

    GROUP = "Images"

    max_broken: float = option(
        0.01,
        "the share of files that may be broken, and are left out, 0 to 1; 3 in a small folder, up to a tenth of it",
    )

    def check(self) -> None:
        """Raise UsageError for a share out of range."""
        require(0 <= self.max_broken <= 1, "max_broken", self.max_broken, "a share from 0 to 1, e.g. 0.01")


def check(index: Index, max_broken: float) -> None:
    """Raise DataError with a list if too many of the images are broken (see `allowed`), or none is used."""
    if message := refusal(index, max_broken):
        raise DataError(message)


def refusal(index: Index, max_broken: float) -> str:
    """Return why nothing would be trained on an index, as far as its files are concerned; empty if they are fine."""
    broken, used = index.broken, len(index.used)
    total = len(broken) + used
    if not used:
        return f"No usable image in {index.name}:{listed_reasons(index)}"
    if len(broken) > (most := allowed(total, max_broken)):
        share = math.ceil(100 * len(broken) / total) / 100
        return (
            f"{len(broken)} of {total} images in {index.name} are broken, and at most {math.floor(most)} may be; fix "
            f"or remove them, or leave them out by --max-broken {share}:{listed_reasons(broken)}"
        )
    return ""


def allowed(total: int, max_broken: float) -> float:
    """Return how many of so many images may be broken: the share, or FEW where that is more, up to a tenth of them."""
    return max(round(max_broken * total, 6), min(FEW, total / 10)) if max_broken else 0


def notes(index: Index) -> list[str]:
    """Return a sentence for each class without a usable image, for pictures without labels, and for those with two."""
    used = set(index.classes)
    lost: defaultdict[str, list[Row]] = defaultdict(list)
    for row in index:
        for label in row.names if row.status != "used" else ():
            if label not in used:
                lost[label].append(row)
    return [
        *(_lost(f"The class {label!r}", rows) for label, rows in sorted(lost.items())),
        *(_lost(f"The {part} part", rows) for part, rows in lost_parts(index).items()),
        *_without_label(index),
        *_conflicts(index),
    ]


def lost_parts(index: Index) -> dict[str, list[Row]]:
    """Return the rows of each part that has no usable image, though it has files."""
    lost = {part: [row for row in index if row.part == part] for part in PARTS if not index.part(part)}
    return {part: rows for part, rows in lost.items() if rows}


def listed_reasons(index: Index) -> str:
    """Return the first files with their reasons, a line for each."""
    return listed_lines([f"{row.path}: {row.reason}" for row in index], SHOWN_FILES)


def _lost(subject: str, rows: Sequence[Row]) -> str:
    reasons = Counter(row.reason for row in rows if row.reason != EMPTY_FOLDER)
    if not reasons:
        return f"{subject} has no usable image: its folder is empty."
    shown = listed([f"{count(number, 'file')}: {reason}" for reason, number in reasons.most_common()], 3, "; ")
    return f"{subject} has no usable image ({shown})."


def _without_label(index: Index) -> Iterator[str]:
    start, end = UNLABELLED.split("{}")
    folders = Counter(
        row.reason.removeprefix(start).removesuffix(end)
        for row in index.ignored
        if row.reason.startswith(start) and row.reason.endswith(end)
    )
    for folder, number in folders.items():
        yield (
            f"{folder}/ has no class folders: its {count(number, 'picture')} have no labels and are not used; "
            "`regraft predict` can name them."
        )


def _conflicts(index: Index) -> Iterator[str]:
    rows = [row for row in index.ignored if row.reason.startswith(OTHER_LABEL)]
    if rows:
        example = f"{rows[0].path} is {rows[0].label!r}, and {rows[0].reason}"
        yield f"{count(rows, 'file')} with a picture that has two labels are ignored, e.g. {example}."
