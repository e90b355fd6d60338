"""Which images a model knows: those of its training, by their bytes or as other versions of the same pictures.

A model and an index enter; the part to evaluate leaves, and what must be said about it. An image that was trained on
says nothing of new photographs, nor does its picture saved again, resized, mirrored or cropped.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regraft.core.errors import DataError
from regraft.core.text import count, percent
from regraft.data.index import Index, Row
from regraft.pipeline.fit import LEARNED_AGAIN

if TYPE_CHECKING:
    from regraft.features.options import StoreOptions
    from regraft.model.model import Model

CROSS_VALIDATION = "cross-validation"  # stands for a part: each image evaluated by a model trained without it
NEW = "new images"  # stands for a part: those that the model does not know
ANOTHER = "saved again, resized, mirrored or cropped"


@dataclass(frozen=True)
class Known:
    """What a model knows of the images of an index.

    versions: id → id of the training's image of which it is another version.
    unknown:  how many images of the training could not be compared with those that are new.
    """

    model: Model
    versions: Mapping[str, str] = field(default_factory=dict)
    unknown: int = 0

    def part_of(self, row: Row) -> str | None:
        """Return the part that the image, or another version of it, had when the model was trained."""
        return self.model.part_of(self.versions.get(row.id, row.id))

    def trained_on(self, rows: Iterable[Row]) -> int:
        """Return how many of the rows, or other versions of them, were trained on."""
        parts = {"train", "validation"} if LEARNED_AGAIN in self.model.chosen else {"train"}
        return sum(self.part_of(row) in parts for row in rows)

    def notes(self, rows: Iterable[Row]) -> tuple[str, ...]:
        """Return what makes a number of these rows better than it would be on new photographs."""
        rows = list(rows)
        notes = []
        if learned := self.trained_on(rows):
            versions = sum(row.id in self.versions for row in rows)
            among = f" ({versions:,} of them as another version: {ANOTHER})" if versions else ""
            notes.append(
                f"{learned} of these {len(rows)} images were trained on{among}: new photographs will do worse than this"
            )
        helped = sum(self.part_of(row) == "validation" for row in rows)
        if helped and self.model.chosen.get("judged_on") == "validation":
            notes.append(f"{helped} of these images helped to choose the model")
        return tuple(notes)

    def notes_on_index(self, index: Index) -> tuple[str, ...]:
        """Return what is known of versions in an index whose training images are left out."""
        left_out = sum(row.id in self.versions and row.part == "train" for row in index.used)
        notes = []
        if left_out:
            notes.append(f"{count(left_out, 'image')}: a picture that was trained on, {ANOTHER}; not evaluated")
        if self.unknown:
            notes.append(
                f"{count(self.unknown, 'image')} of the training are not in this store: whether the new images are "
                "other versions of them was not looked for"
            )
        return tuple(notes)


def known(model: Model, index: Index, store: StoreOptions) -> Known:
    """Return what a model knows of an index; of versions only if its training, too, tied them."""
    if model.options.get("near_duplicates", "tie") == "ignore":
        return Known(model)
    from regraft.features import fingerprints
    from regraft.features.store.store import Store

    return Known(model, *fingerprints.versions_of(index, model.images, Store(store.store)))


def choose_part(known: Known, index: Index, part: str | None) -> tuple[str, Index, tuple[str, ...]]:
    """Return the part to evaluate, its rows, and what must be said about the choice."""
    index = _with_known_parts(known, index)
    notes = known.notes_on_index(index)
    new = index.where(lambda row: row.status == "used" and row.part is None)
    if part == "all" or (part is None and len(new) == len(index.used)):
        return "all", index.used, notes if part is None else ()
    for name in (part,) if part else ("test", "validation"):
        if chosen := index.part(name):
            return name, chosen, (*_notes_on_choice(name, len(new)), *notes) if part is None else ()
    if part is None and new:
        return NEW, new, (f"{count(len(index.used) - len(new), 'image')} of the training are not evaluated", *notes)
    if part is None and CROSS_VALIDATION in known.model.measures:
        return "all", index.used, (_cross_validated(known.model),)
    counts = Counter(row.part or "new" for row in index.used)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    raise DataError(f"No image of {index.name} is in the part {part or 'test'!r}; there are {listed}. Try --part all.")


def _cross_validated(model: Model) -> str:
    measures = model.measures[CROSS_VALIDATION]
    accuracy = percent(measures.get("accuracy", measures.get("exact_match")))
    return f"cross-validation, when the model was trained, gave an accuracy of {accuracy} %"


def _with_known_parts(known: Known, index: Index) -> Index:
    """Return the index with the parts that the model's run gave; a copy in another part than that is left out again."""
    in_place = {row.id for row in index.used if row.part == known.part_of(row)}

    def marked(row: Row) -> Row:
        part = known.part_of(row)
        if row.status != "used" or part in (None, row.part):
            return row
        if row.part and row.id in in_place:
            return row.marked("ignored", f"the same picture is in the {part} part")
        return dataclasses.replace(row, part=part)

    return index.with_rows(marked(row) for row in index)


def _notes_on_choice(name: str, new: int) -> tuple[str, ...]:
    """Return what the choice of a part by itself has passed over."""
    left = (
        [f"{new} images are new to the model, in no part, and not evaluated; --part all takes them in"] if new else []
    )
    return (*left, *(["there is no test part; the validation part is evaluated"] if name == "validation" else []))
