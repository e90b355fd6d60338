"""The index: which images there are, and for each its label, part, group and status.

The files of a source enter (see `sources/`), an immutable table leaves: one
row per file, in the source's order, none missing. Pixels are left to `decode`;
the images that it can't decode come back as rows marked broken.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from regraft.core.errors import DataError
from regraft.core.text import count, listed
from regraft.data.formats import DECODE_RULES

Status = Literal["used", "ignored", "broken"]

PARTS = ("train", "validation", "test")


class Location(Protocol):
    """Where the bytes of one image are: a file, a member of an archive."""

    def head(self) -> bytes:
        """Return the first bytes, `formats.HEAD` of them or more; raise OSError if they are not available."""
        ...

    def read(self) -> bytes:
        """Return the image's bytes; raise OSError if they are not available."""
        ...

    def stamp(self) -> int:
        """Return a number that changes whenever the bytes may have changed (sizes, times, checksums); 0 if unknown."""
        ...


def key_of(id: str, rules: int) -> str:
    """Return what names an image's features: its id, and if later rules decode it, a sha256 of it and their version."""
    if rules == DECODE_RULES:
        return id
    return hashlib.sha256(f"{id} decoded by the rules of version {rules}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file of a source."""

    path: str  # as the user knows it, e.g. "train/cat/1.jpg", always with "/"
    location: Location
    id: str = ""  # sha256 of the bytes in hex; "" if they were not read
    stamp: int = dataclasses.field(default=0, compare=False)  # of the location, before the bytes were read
    label: str | None = None
    labels: tuple[str, ...] | None = None  # multilabel: any number of them; `label` is then all of them in one text
    part: str | None = None  # one of PARTS
    group: str | None = None  # rows of one group stay on one side of a split
    status: Status = "used"
    reason: str = ""  # why it is ignored or broken
    format: str = ""  # "JPEG", "PNG", …: what the bytes say, not the name
    size: tuple[int, int] = (0, 0)  # width, height in pixels as stored, before EXIF turns it; (0, 0) if unknown
    rules: int = DECODE_RULES  # the version of the rules that its pixels are decoded by
    remarks: tuple[str, ...] = ()  # what is converted or left out when it is decoded
    version_of: str = (
        ""  # id of the picture of which it is another version; "" if of none, or if that was not looked for
    )

    @property
    def key(self) -> str:
        """What names the image's features, see `key_of`."""
        return key_of(self.id, self.rules)

    @property
    def picture(self) -> str:
        """What is equal for copies and other versions of one picture: an id; of a file that was not read its path."""
        return self.version_of or self.id or self.path

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that the image belongs to: one, or for multilabel images any number."""
        return self.labels if self.labels is not None else () if self.label is None else (self.label,)

    def has_changed(self, data: bytes) -> bool:
        """Whether `data`, just read from the location, differs from the bytes that `id` was computed of.

        It is hashed again only if the location's stamp has changed, or was unknown.
        """
        if self.stamp and self.location.stamp() == self.stamp:
            return False
        return hashlib.sha256(data).hexdigest() != self.id

    def marked(self, status: Status, reason: str) -> Row:
        """Return the row with another status and its reason."""
        return dataclasses.replace(self, status=status, reason=reason)


@dataclass(frozen=True, repr=False)
class Index:
    """Immutable table of the files of a source, one row each.

    rows:     in the source's order; archives in the archive's order.
    name:     what the user called the source, for messages.
    compared: whether near-duplicates were looked for, or are not to be.
    """

    rows: tuple[Row, ...]
    name: str = ""
    compared: bool = False

    def __repr__(self) -> str:
        """Return one line, for an interactive session."""
        parts = "".join(f", {len(rows)} {part}" for part in PARTS if (rows := self.part(part)))
        left_out = f"{len(self.ignored)} ignored, {len(self.broken)} broken"
        classes = count(self.classes, "class", "classes")
        return f"<Index of {self.name}: {len(self.used)} used{parts}, {left_out}, {classes}>"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def where(self, keep: Callable[[Row], bool]) -> Index:
        """Return the index of the rows for which `keep` is true."""
        return dataclasses.replace(self, rows=tuple(row for row in self.rows if keep(row)))

    def with_rows(self, rows: Iterable[Row]) -> Index:
        """Return the same index with other rows."""
        return dataclasses.replace(self, rows=tuple(rows))

    def mark_broken(self, reasons: Mapping[str, str]) -> Index:
        """Return the index with used rows marked as broken.

        reasons: by the path of one row, or by the id of all rows with the same bytes.
        """
        return self.with_rows(_marked_broken(row, reasons) for row in self.rows)

    @property
    def used(self) -> Index:
        """The rows that are used."""
        return self.where(lambda row: row.status == "used")

    @property
    def broken(self) -> Index:
        """The rows that are broken; each has its reason."""
        return self.where(lambda row: row.status == "broken")

    @property
    def ignored(self) -> Index:
        """The rows that are ignored; each has its reason."""
        return self.where(lambda row: row.status == "ignored")

    def part(self, name: str) -> Index:
        """Return the used rows of one part: "train", "validation" or "test"."""
        return self.where(lambda row: row.part == name and row.status == "used")

    @property
    def train(self) -> Index:
        """The used rows of the training part."""
        return self.part("train")

    @property
    def validation(self) -> Index:
        """The used rows of the validation part."""
        return self.part("validation")

    @property
    def test(self) -> Index:
        """The used rows of the test part."""
        return self.part("test")

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of labels, from none to all."""
        return any(row.labels is not None for row in self.rows)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels of the used rows, sorted by name."""
        return tuple(self.class_counts)

    @property
    def class_counts(self) -> dict[str, int]:
        """How many used rows each class has, by name."""
        counts = Counter(name for row in self.rows if row.status == "used" for name in row.names)
        return {label: counts[label] for label in sorted(counts)}

    def label_codes(self, classes: Sequence[str]) -> list[int]:
        """Return each row's label as its index in `classes`; raise DataError for a label that is not among them."""
        codes = {label: code for code, label in enumerate(classes)}
        for row in self.rows:
            if row.label not in codes:
                raise DataError(f"{row.path} has the label {row.label!r}; expected one of {listed(classes)}.")
        return [codes[row.label] for row in self.rows if row.label is not None]

    def picture_codes(self) -> list[int]:
        """Return a number for each row, equal for copies and near-duplicates: versions of one picture."""
        codes: dict[str, int] = {}
        return [codes.setdefault(row.picture, len(codes)) for row in self.rows]

    def label_flags(self, classes: Sequence[str]) -> list[list[bool]]:
        """Return for each row which of `classes` it has; raise DataError for a label that is not among them."""
        for row in self.rows:
            if unknown := set(row.names) - set(classes):
                raise DataError(f"{row.path} has the label {min(unknown)!r}; expected some of {listed(classes)}.")
        return [[name in row.names for name in classes] for row in self.rows]


def _marked_broken(row: Row, reasons: Mapping[str, str]) -> Row:
    reason = reasons.get(row.path, reasons.get(row.id))
    return row if reason is None or row.status != "used" else row.marked("broken", reason)
