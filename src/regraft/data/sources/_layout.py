"""From the paths of a source's files to their labels and parts.

Rows without labels enter, in the source's order; the same rows leave with a
label and a part, or ignored with a reason. Only names are used; what a file
holds is left to `read`.

Accepted are a folder of class folders, a folder of part folders (named like
`train`, `valid`, `seg_test`, `test_set`) that hold class folders, and class
folders that hold part folders; each may be inside folders that hold nothing
else, as in most archives. Files nested below a class folder belong to the
class. What can be read in two ways is refused, with both.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from regraft.core.errors import DataError
from regraft.core.progress import log
from regraft.core.text import count, listed
from regraft.data.formats import has_image_name, unread_by_name
from regraft.data.index import PARTS, Row
from regraft.data.labels import PART_NAMES, as_label
from regraft.data.sources import _pattern

WORKING_LAYOUTS = (
    "Expected one folder per class (cat/1.jpg, dog/2.jpg), or such folders below train, validation and test "
    "(train/cat/1.jpg), or a CSV file with the columns path and label."
)

HIDDEN = "hidden or system file"
EMPTY_FOLDER = "an empty folder"
NO_CLASS = "not in a class folder"
UNLABELLED = "in {}/, which has no class folders: a picture without a label"

_SYSTEM_NAMES = frozenset(["__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"])
_UNLABELLED_WORDS = frozenset(["pred", "predict", "prediction", "predictions", "unlabelled", "unlabeled"])
_COLLECTIONS = ("images", "image", "imgs", "img", "data", "photos")
_ANNOTATIONS = ("masks", "mask", "labels", "annotations", "annotation", "ground_truth", "groundtruth", "gt")
_PART_AND_CLASS = re.compile(r"(?i)(train|test|valid|val)[ _-]?(.+)")
_SETS = {f"{name}set": part for name, part in PART_NAMES.items()}  # trainset, testset
_DOCUMENT = re.compile(
    r"(?i)^(readme|licen[cs]e)|\.(txt|md|rst|csv|tsv|json|xml|ya?ml|html?|pdf|py|ipynb|log|docx?|xlsx?)$"
)
_DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d?){0,2}")

Paths = Sequence[tuple[str, ...]]


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, is hidden or belongs to the operating system."""
    return any(name.startswith(".") or name.casefold() in _SYSTEM_NAMES for name in path.split("/"))


def part_named(name: str) -> str | None:
    """Return the part that a name has in it as one of its words: seg_train, test_set; None if none, or two."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    parts = {part for word in words if (part := PART_NAMES.get(word) or _SETS.get(word))}
    return parts.pop() if len(parts) == 1 else None


@dataclass(frozen=True)
class _Layout:
    """Which folders of a path are its class and its part."""

    wrapper: tuple[str, ...] = ()  # outer folders of all
    parts: Mapping[str, tuple[str, ...]] | None = None  # the part folders, and for each the folders in it to skip
    unlabelled: frozenset[str] = frozenset()  # the top folders that hold images and no class folders
    classes_first: bool = False  # the part is the folder in the class folder

    def part_and_label(self, path: tuple[str, ...]) -> tuple[str | None, str] | None:
        """Return the part and the label of a path; None if it is not in a class folder."""
        if path[: len(self.wrapper)] != self.wrapper:
            return None
        path = path[len(self.wrapper) :]
        if self.classes_first:
            part = part_named(path[1]) if len(path) > 2 else None
            return (part, as_label(path[0])) if part else None
        part = None
        if self.parts is not None:
            skipped = self.parts.get(path[0])
            if skipped is None or path[1 : 1 + len(skipped)] != skipped:
                return None
            part, path = part_named(path[0]), path[1 + len(skipped) :]
        return (part, as_label(path[0])) if len(path) > 1 else None

    def reason(self, path: tuple[str, ...]) -> str:
        """Return why a file outside all class folders is ignored."""
        top = path[len(self.wrapper) : len(self.wrapper) + 1]
        is_unlabelled = self.unlabelled.issuperset(top) and has_image_name(path[-1])
        return UNLABELLED.format("/".join((*self.wrapper, *top))) if is_unlabelled else NO_CLASS


def label_rows(rows: Sequence[Row], name: str, pattern: str | None = None) -> Iterator[Row]:
    """Yield the rows with labels and parts, by the layout or by a pattern (see `_pattern`).

    Raises DataError if no file has a label, or the layout can be read in two ways.
    """
    paths = [tuple(row.path.split("/")) for row in rows if row.status != "ignored"]
    if not paths:
        raise DataError(f"{name} holds no files{_except(rows)}. {WORKING_LAYOUTS}")
    if pattern is not None:
        yield from _by_pattern(rows, name, pattern)
        return
    layout = _layout(paths, name)
    if not any(layout.part_and_label(path) for path in paths):
        raise _no_classes(paths, name)
    for row in rows:
        yield _labelled(row, layout)


def _labelled(row: Row, layout: _Layout) -> Row:
    if row.status != "used" and row.reason != EMPTY_FOLDER:
        return row
    path = tuple(row.path.split("/"))
    part_and_label = layout.part_and_label(path)
    if part_and_label is None:
        return row.marked("ignored", layout.reason(path)) if row.status == "used" else row
    part, label = part_and_label
    return dataclasses.replace(row, part=part, label=label)


def _by_pattern(rows: Sequence[Row], name: str, pattern: str) -> Iterator[Row]:
    labelled = [_named(row, pattern) if row.status == "used" else row for row in rows]
    if not any(row.label for row in labelled):
        path = next((row.path for row in rows if has_image_name(row.path)), rows[0].path)
        raise DataError(f"No file in {name} matches --label-from {pattern!r}, e.g. {path}: {_pattern.HELP}.")
    yield from labelled


def _named(row: Row, pattern: str) -> Row:
    names = _pattern.names_in(row.path, pattern)
    if names is None:
        return row.marked("ignored", "its path does not match --label-from")
    part = part_named(names["part"]) if "part" in names else None
    if "part" in names and part is None:
        raise DataError(f"{row.path} has the part {names['part']!r} by {pattern!r}; expected one of {listed(PARTS)}.")
    return dataclasses.replace(row, label=as_label(names["label"]), part=part, group=names.get("group"))


# What the layout is


def _layout(paths: Paths, name: str) -> _Layout:
    images = [path for path in paths if has_image_name(path[-1])] or paths
    wrapper = _wrapper([path for path in paths if not _DOCUMENT.search(path[-1])])
    inner = [path[len(wrapper) :] for path in images if path[: len(wrapper)] == wrapper]
    tops = _below(inner)
    shown = "/".join((name, *wrapper))
    _check_names(tops, shown)
    parts = _parts(tops, shown)
    if parts:
        skipped = {top: _doubled(top, tops[top]) for top in parts}
        depths = {top: max(map(len, tops[top])) - len(skipped.get(top, ())) for top in tops}
        unlabelled = frozenset(top for top in tops if top not in skipped or depths[top] < 2)
        return _Layout(wrapper, skipped, unlabelled)
    subfolders = {top: set(_below(paths)) for top, paths in tops.items() if all(len(path) > 1 for path in paths)}
    if len(tops) < 2 or len(subfolders) < len(tops):
        return _Layout(wrapper)
    if all(part_named(folder) for folders in subfolders.values() for folder in folders):
        if all(len(path) == 3 for path in inner if len(path) > 1):
            return _Layout(wrapper, classes_first=True)
        raise _two_readings(shown, wrapper, subfolders)
    _check_readings(shown, wrapper, subfolders)
    last = {top: {path[-2] for path in paths if len(path) > 1} for top, paths in tops.items()}
    if last != subfolders:
        _check_readings(shown, wrapper, last)
    return _Layout(wrapper)


def _below(paths: Paths) -> dict[str, list[tuple[str, ...]]]:
    """Return by the name of each top folder the paths within it."""
    tops: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        if len(path) > 1:
            tops.setdefault(path[0], []).append(path[1:])
    return tops


def _wrapper(paths: Paths) -> tuple[str, ...]:
    """Return the outer folders to skip: they hold one folder and no images, and are not a part's.

    A folder named like a collection of images, such as Images, is one too where none of those beside it holds an image.
    """
    tops = _below(paths)
    filled = [top for top, inner in tops.items() if any(has_image_name(path[-1]) for path in inner)]
    if (len(tops) != 1 and not (len(filled) == 1 and filled[0].casefold() in _COLLECTIONS)) or _has_images(paths):
        return ()
    top = filled[0] if filled else next(iter(tops))
    below = tops[top]
    if top.casefold() in PART_NAMES or _has_images(below) or all(len(path) == 1 for path in below):
        return ()
    return (top, *_wrapper(below))


def _has_images(paths: Paths) -> bool:
    """Whether images lie there, in no folder."""
    return any(len(path) == 1 and has_image_name(path[0]) for path in paths)


def _holds_folders(paths: Paths) -> bool:
    return all(len(path) > 1 for path in paths)


def _parts(tops: Mapping[str, Paths], name: str) -> list[str]:
    """Return which top folders are parts, all others having no labels; raise DataError if only some of them are."""
    exact = [top for top in tops if top.casefold() in PART_NAMES]
    parts = [top for top in tops if part_named(top)]
    if not exact and not _are_loose_parts({top: tops[top] for top in parts}, len(parts) == len(tops)):
        return []
    unlabelled = {top for top in tops if _UNLABELLED_WORDS & {*re.split(r"[\W\d_]+", top.casefold())}}
    others = sorted(set(tops) - set(parts) - unlabelled)
    if others:
        shown = listed(sorted(parts))
        raise DataError(
            f"{name} holds folders named like parts ({shown}) beside other folders with images "
            f"({listed(others)}). Move every class folder into a part's folder, or move {shown} elsewhere; "
            "if it is the name of a class, rename it, or list the images in a CSV file with the columns path and label."
        )
    return parts


def _check_names(tops: Mapping[str, Paths], name: str) -> None:
    """Raise DataError for folders of images whose names are no classes': part and class in one, images beside masks."""
    if any(len(path) > 1 for paths in tops.values() for path in paths):
        return
    named = [match.groups() for top in tops if (match := _PART_AND_CLASS.fullmatch(top))]
    classes = Counter(label for _, label in named)
    if len(named) == len(tops) and max(classes.values(), default=0) > 1:
        raise DataError(
            f"{name} holds folders that name a part and a class at once ({listed(sorted(tops))}). Put those of a part "
            f"into one, such as {named[0][0]}/{named[0][1]}, or add --label-from '{{label}}/*' if all are classes."
        )
    kinds = {top.casefold() for top in tops}
    if kinds & {*_ANNOTATIONS} and kinds <= {*_ANNOTATIONS, *_COLLECTIONS}:
        raise DataError(
            f"{name} holds {listed(sorted(tops))}: images and their masks or labels, which are no classes of images. "
            "Expected one folder per class; if these are the classes, add --label-from '{label}/*'."
        )


def _are_loose_parts(tops: Mapping[str, Paths], are_all: bool) -> bool:
    """Whether folders that have a part in their names (seg_train, seg_test) are parts, and not classes.

    are_all: no other folder is beside them.
    """
    is_varied = len({part_named(top) for top in tops}) > 1
    return is_varied and (are_all or any(_holds_folders(paths) for paths in tops.values()))


def _doubled(part: str, paths: Paths) -> tuple[str, ...]:
    """Return the one folder to skip in a part's folder: its own name once more, or no class's, as `images`."""
    folders = list(_below(paths))
    if len(folders) != 1 or not _holds_folders(paths):
        return ()
    is_same = part_named(folders[0]) == part_named(part)
    return (folders[0],) if is_same or folders[0].casefold() in _COLLECTIONS else ()


def _check_readings(name: str, wrapper: tuple[str, ...], subfolders: Mapping[str, set[str]]) -> None:
    """Raise DataError if the classes may be the top folders as well as those within them; say which are taken."""
    counts = Counter(folder for folders in subfolders.values() for folder in folders)
    shared = sum(number > 1 for number in counts.values())
    if len(counts) > 1 and (shared >= len(counts) / 2 or all(_DATE.fullmatch(top) for top in subfolders)):
        raise _two_readings(name, wrapper, subfolders)
    if len(counts) > len(subfolders):
        log.info(
            "The classes are %s; folders within them (%s) belong to their class. Where those are the classes, add "
            "--label-from '{label}/*'.",
            listed(sorted(subfolders)),
            listed(sorted(counts), 3),
        )


def _two_readings(name: str, wrapper: tuple[str, ...], subfolders: Mapping[str, set[str]]) -> DataError:
    inner = sorted({folder for folders in subfolders.values() for folder in folders})
    top = "/".join((*wrapper, "{label}/**/*"))
    return DataError(
        f"{name} can be read in two ways: the classes are its folders {listed(sorted(subfolders))}, or the folders "
        f"within them, {listed(inner)}. Say which: --label-from '{top}' takes the first, "
        "--label-from '{label}/*' the second, with the folder that each image lies in."
    )


def _no_classes(paths: Paths, name: str) -> DataError:
    images = ["/".join(path) for path in paths if has_image_name(path[-1])]
    hint = _pattern.suggestion(images) if images else ""
    if not hint and any("/" in path for path in images):
        hint = " If the folders are the classes, whatever their names, add --label-from '{label}/*'."
    if tables := sorted("/".join(path) for path in paths if re.search(r"(?i)\.(csv|tsv)$", path[-1])):
        hint += f" If {tables[0]} lists the labels, give it as the source."
    if unread := {unread_by_name(path) for path in images} - {""}:
        hint += f" {listed(sorted(unread))} is not read; convert it to JPEG or PNG."
    return DataError(
        f"{name} holds {count(paths, 'file')} ({_examples(paths)}), none in a class folder. {WORKING_LAYOUTS}{hint}"
    )


def _examples(paths: Paths) -> str:
    return ", ".join("/".join(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")


def _except(rows: Sequence[Row]) -> str:
    return f" except {count(rows, 'ignored file')} ({rows[0].path}: {rows[0].reason})" if rows else ""
