"""Which images are other versions of one picture, by fingerprints that are kept in the store.

An index enters; the same index leaves, `version_of` set where an image is another version of one that is in it. Each
image is decoded once for its fingerprint, small where its format allows it, and never again; how fingerprints are
compared is left to `similar`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from regraft.core.errors import StoreError
from regraft.core.progress import log, progress
from regraft.core.text import count
from regraft.data.decode import RULES
from regraft.data.formats import DECODE_RULES
from regraft.data.index import Index, Row, key_of
from regraft.features import similar, worker
from regraft.features.alignment import SIZE
from regraft.features.store.shelf import MissingRows, Shelf, bytes_needed
from regraft.features.store.store import Store, room
from regraft.network.trunk import Stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Fingerprints = NDArray[np.uint8]

T = TypeVar("T")

ABOUT: dict[str, Any] = {"what": "fingerprints", "version": 1}
STORED: Stored = "bfloat16"  # holds whole numbers up to 256 as they are
TINY = 32  # pixels; a picture whose shorter side is no longer holds too little to tell a version from another one
COMPARED = "00"  # ends the key of the outcome of a comparison: four bytes for each image
PART = 512  # images whose fingerprints are read, and written, at once


def compare(index: Index, store: Store) -> Index:
    """Return the index with `version_of` set in its used rows; broken and tiny images are like no other."""
    firsts = {row.id: row for row in reversed(index.used.rows) if min(row.size) > TINY}
    rows = [firsts[id] for id in sorted(firsts)]  # so that their order in the source has no influence
    fingerprints, present = of_rows(rows, store)
    comparable = [row for row, there in zip(rows, present.tolist(), strict=True) if there]
    ids, keys = [row.id for row in comparable], [row.key for row in comparable]
    numbers = _representatives(fingerprints[present], keys, store)
    versions = {id: ids[number] for id, number in zip(ids, numbers, strict=True) if id != ids[number]}
    compared = (
        dataclasses.replace(row, version_of=versions[row.id]) if row.status == "used" and row.id in versions else row
        for row in index
    )
    return dataclasses.replace(index, rows=tuple(compared), compared=True)


def versions_of(index: Index, known: Iterable[str], store: Store) -> tuple[dict[str, str], int]:
    """Return which used images are other versions of known ones, id → known id, and how many of these are not compared.

    known: ids of images that need not be here any more; those are compared whose fingerprints the store has.
    """
    known = set(known)
    new = {row.id: row for row in index.used if row.id not in known and min(row.size) > TINY}
    rows = [new[id] for id in sorted(new)]
    fingerprints, present = of_rows(rows, store)
    if not present.any():
        return {}, 0
    shelf, keys = store.fingerprints(ABOUT, STORED), _present(known, store)
    comparable = [row for row, there in zip(rows, present.tolist(), strict=True) if there]

    def compared() -> NDArray[np.int64]:
        parts = [_sound(shelf, part) for part in _parts([*keys])]
        return similar.shown_by(fingerprints[present], np.concatenate([np.empty((0, SIZE), np.uint8), *parts]))

    shown, ids = _outcome([*keys, "of", *(row.key for row in comparable)], len(comparable), compared, store), [*keys]
    versions = {row.id: keys[ids[number]] for row, number in zip(comparable, shown, strict=True) if number >= 0}
    return versions, len(known) - len(keys)


def _sound(shelf: Shelf, keys: Sequence[str]) -> Fingerprints:
    """Return fingerprints, (n, SIZE); zeros, like no picture's, where one of them is damaged."""
    try:
        return shelf.read(keys, (SIZE,)).astype(np.uint8)
    except MissingRows:
        return np.zeros((len(keys), SIZE), np.uint8)


def _present(ids: Iterable[str], store: Store) -> dict[str, str]:
    """Return the keys, each with its id, of the images whose fingerprints the store has."""
    keys = {key_of(id, rules): id for rules in (DECODE_RULES, RULES) for id in sorted(ids)}
    shelf = store.fingerprints(ABOUT, STORED)
    try:
        absent = {*shelf.missing([*keys]), *shelf.errors([*keys])}
    except StoreError as error:  # it may only be read, and has none
        log.debug("No fingerprints are known: %s", error)
        return {}
    return {key: id for key, id in keys.items() if key not in absent}


def _representatives(fingerprints: Fingerprints, keys: Sequence[str], store: Store) -> list[int]:
    """Return for each image the number of the one that represents its picture."""
    return _outcome(keys, len(keys), lambda: similar.representatives(fingerprints), store) if keys else []


def _outcome(names: Sequence[str], count: int, compared: Callable[[], NDArray[np.int64]], store: Store) -> list[int]:
    """Return `count` numbers that a comparison of the images with these names gives; the same are compared once."""
    shelf, shape = store.fingerprints(ABOUT, STORED), (4 * count,)
    name = hashlib.sha256(json.dumps([ABOUT, *names]).encode()).hexdigest() + COMPARED
    try:
        kept = shelf.read([name], shape)[0].astype(np.uint8).view("<i4")
    except (StoreError, MissingRows):
        kept = compared().astype("<i4")
        _keep(shelf, [name], kept.view(np.uint8), {})
    numbers: list[int] = kept.tolist()
    return numbers


def of_rows(rows: Sequence[Row], store: Store) -> tuple[Fingerprints, NDArray[np.bool_]]:
    """Return the fingerprints of rows, (n, SIZE), and which of them could be made: (n,)."""
    shelf = store.fingerprints(ABOUT, STORED)
    keys = [row.key for row in rows]
    try:
        todo, broken = set(shelf.missing(keys)), shelf.errors(keys)
    except StoreError as error:  # it may only be read, and has none
        log.debug("Fingerprints are not kept: %s", error)
        todo, broken = set(keys), {}
    fingerprints, present = np.zeros((len(rows), SIZE), np.uint8), np.zeros(len(rows), bool)
    stored = [at for at, key in enumerate(keys) if key not in todo and key not in broken]
    for part in _parts(stored):
        try:
            fingerprints[part] = shelf.read([keys[at] for at in part], (SIZE,))
            present[part] = True
        except MissingRows:  # one is damaged: these few are computed again
            todo.update(keys[at] for at in part)
    for at, value in _computed([at for at, key in enumerate(keys) if key in todo], rows, shelf, store):
        fingerprints[at], present[at] = value, True
    return fingerprints, present


def _computed(
    todo: Sequence[int], rows: Sequence[Row], shelf: Shelf, store: Store
) -> Iterator[tuple[int, Fingerprints]]:
    """Yield the positions and the fingerprints of rows that can be decoded; they are stored if there is room."""
    if not todo:
        return
    keep = bytes_needed(len(todo), (SIZE,), STORED) <= room(store.folder)
    unread = 0
    results = worker.of_pixels([rows[at] for at in todo], similar.LEAST_SIDE, similar.fingerprint)
    with progress("Looking for near-duplicates", len(todo)) as advance:
        for part in _parts(todo):
            values, errors = {}, {}
            for at, result in zip(part, results):  # noqa: B905 (the results of the next parts follow)
                if not isinstance(result, worker.Failure):
                    values[at] = result
                elif result.lasting:
                    errors[rows[at].key] = result.reason
                else:
                    unread += 1
                advance(1)
            if keep:
                keep = _keep(shelf, [rows[at].key for at in values], np.array([*values.values()]), errors)
            yield from values.items()
    if unread:
        log.warning("%s can't be read now, so that near-duplicates among them are not known.", count(unread, "image"))


def _keep(shelf: Shelf, keys: Sequence[str], values: Fingerprints, errors: dict[str, str]) -> bool:
    """Put fingerprints into the store; return False where it may only be read: they are computed again then."""
    try:
        shelf.put(keys, values.reshape(len(keys), values.size // max(1, len(keys))), errors)
    except StoreError as error:
        log.debug("Fingerprints are not kept: %s", error)
        return False
    return True


def _parts(items: Sequence[T]) -> Iterator[list[T]]:
    return (list(items[start : start + PART]) for start in range(0, len(items), PART))
