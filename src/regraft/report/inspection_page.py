"""The page of an inspection: images of each class, some of them, sizes, formats, and the files that need a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from regraft.core.text import count, listed
from regraft.data.index import PARTS, Index, Row
from regraft.data.inspect import Inspection
from regraft.report import grids, pages, plots
from regraft.report.pages import Chart, Photo, Section

LISTED = 50  # files of a table
SAMPLES, SAMPLES_PER_CLASS = 60, 6  # photographs, drawn at random
CONFLICTS = 12  # shown as pictures; all are listed


def render(inspection: Inspection, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    first = [Section("Images of each class", _class_bars(inspection.index)), _samples(inspection.index.used)]
    photos = [_conflict(group) for group in inspection.conflicts[:CONFLICTS]]
    return page(inspection.to_dict(), command, first, photos)


def page(values: Mapping[str, Any], command: str, first: Sequence[Section], photos: Sequence[Photo] = ()) -> str:
    """Return the page of counts and lists.

    first:  the sections that stand first.
    photos: of conflicts.
    """
    lead = f"{values['used']:,} used, {values['ignored']:,} ignored, {values['broken']:,} broken"
    return pages.plain(
        values["source"] or "images",
        f"{lead}; {count(values['classes'], 'class', 'classes')}.",
        [
            *first,
            Section("Sizes in pixels", rows=[["", "smallest", "median", "largest"], *_sizes(values["sizes"])]),
            Section("Formats", rows=[["", "images"], *([name, f"{n:,}"] for name, n in values["formats"].items())]),
            *_files(values, photos),
        ],
        pages.made(command, values["source"]),
        values.get("notes", ()),
    )


def _files(values: Mapping[str, Any], shown: Sequence[Photo]) -> list[Section]:
    """Return the lists of files that need a look."""
    files = values["files"]
    conflicts = [[row["path"], row["label"]] for group in files["conflicts"] for row in group]
    copies = [[paths[0], " = ".join(paths[1:])] for paths in files["copies"]]
    versions = [[paths[0], " = ".join(paths[1:])] for paths in files["near_duplicates"]]
    return [
        _list("Broken files", ["file", "reason"], _reasons(files["broken"])),
        _list("The same picture under several labels", ["file", "label"], conflicts, shown),
        _list("The same picture in several files", ["file", "its copies"], copies),
        _list("The same picture saved again, resized, mirrored or cropped", ["file", "other versions"], versions),
        _list(
            "Converted, or left out, so that other programs may show other pixels",
            ["file", "what"],
            _reasons(files["remarks"]),
        ),
        _list("Ignored files", ["file", "reason"], _reasons(files["ignored"])),
    ]


def _class_bars(index: Index) -> Chart | None:
    parts = {part: rows.class_counts for part in PARTS if (rows := index.part(part))} or {"images": index.class_counts}
    return pages.chart(partial(plots.class_counts, parts)) if index.class_counts else None


def _samples(index: Index) -> Section:
    """Return photographs of each class, as many of each, drawn at random; of many classes a part of them."""
    classes = [index.classes[number] for number in grids.sample(len(index.classes), SAMPLES, seed=0)]
    each = max(1, min(SAMPLES_PER_CLASS, SAMPLES // max(1, len(classes))))
    rows: dict[str, Row] = {}  # by path: an image of two labels is shown once
    for name in classes:
        of_class = [row for row in index if name in row.names]
        rows |= {of_class[number].path: of_class[number] for number in grids.sample(len(of_class), each, seed=0)}
    photos = [Photo(pages.thumbnail_of(row), str(row.label), row.path) for row in rows.values()]
    return Section("Some of the images", photos=photos, about="Drawn at random. A picture grows when it is clicked.")


def _conflict(group: Sequence[Row]) -> Photo:
    labels = sorted({str(row.label) for row in group})
    return Photo(pages.thumbnail_of(group[0]), " or ".join(labels) + "?", listed([row.path for row in group], 2))


def _sizes(sizes: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    return [[side, *(f"{values[kind]:,}" for kind in ("min", "median", "max"))] for side, values in sizes.items()]


def _reasons(files: Sequence[Mapping[str, str]]) -> list[list[str]]:
    return [[file["path"], file["reason"]] for file in files]


def _list(title: str, titles: Sequence[str], rows: Sequence[Sequence[Any]], photos: Sequence[Photo] = ()) -> Section:
    more = f"and {len(rows) - LISTED:,} more" if len(rows) > LISTED else ""
    return Section(title, photos=photos, rows=[titles, *rows[:LISTED]], total=len(rows), more=more)
