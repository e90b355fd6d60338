"""Damaged files of a store by the thousand: each is read as it was, or refused in words.

Bits, numbers and stretches of the database change, mostly in the headers of its pages. Seeds are fixed. LMDB has no
checksums: of files whose pages contradict each other about one in a thousand ends the process by an assertion of its
own, where `regraft store` counts records; they are counted here, and a single bit never did.
"""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal

import numpy as np
import pytest
from tests.features.store.test_store import ABOUT, DIGEST, ids, rows, views

from regraft.core.errors import StoreError
from regraft.features.store import environment
from regraft.features.store.store import Store

ROUNDS = 1_000  # files of each kind
PAGE = 4096
NUMBERS = (0, 1, 2**15, 2**16 - 1, PAGE, 2**31, 2**32 - 1, 2**63 - 1)
READ, REFUSED, OTHER_NUMBERS, OTHER_ERROR = range(4)
ENDINGS = {READ: "read", REFUSED: "refused", -signal.SIGABRT: "LMDB's assertion"}


def damaged(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        header = rng.randrange(len(data) // PAGE) * PAGE + rng.randrange(64)
        at = header if rng.random() < 0.7 else rng.randrange(len(data))
        width = rng.choice((1, 2, 4, 8))
        match rng.randrange(3):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + width] = rng.choice(NUMBERS).to_bytes(8, "little")[:width]
            case 2:
                changed[at : at + 64] = rng.randbytes(64)
    cut = rng.randrange(len(data)) if rng.random() < 0.05 else len(data)
    return bytes(changed[: min(cut, len(data))])


def outcome(folder, width):
    """Use a store in every way; return how that ended."""
    store, features = Store(folder), rows(60, width)
    shelf = store.shelf(DIGEST, ABOUT)
    try:
        store.to_dict()
        missing = set(shelf.missing(ids(60)))
        assert all(isinstance(reason, str) for reason in shelf.errors(ids(60)).values())
        kept = [number for number, id in enumerate(ids(50)) if id not in missing]
        same = np.array_equal(shelf.read([ids(60)[number] for number in kept], (width,)), features[kept])
        shelf.put(ids(60)[55:], features[55:])
    except StoreError as error:
        assert len(str(error)) < 1000
        return REFUSED
    return READ if same else OTHER_NUMBERS


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each file is opened in a forked process")
@pytest.mark.parametrize("width", [8, 1280], ids=["many rows a page", "pages of their own"])
def test_a_damaged_database_is_read_or_refused_in_words(tmp_path, width, capsys):
    shelf = Store(tmp_path / "whole").shelf(DIGEST, ABOUT)
    shelf.put([*ids(40), *views(20)], rows(60, width), {ids(60)[52]: "cut short"})
    shelf.put(ids(50)[40:], rows(50, width)[40:])
    environment.close(shelf.folder)
    data = (shelf.folder / "data.mdb").read_bytes()
    rng, counts = random.Random(width), collections.Counter()
    for number in range(ROUNDS):
        folder = shutil.copytree(shelf.folder, tmp_path / "store" / DIGEST)
        (folder / "data.mdb").write_bytes(damaged(data, rng))
        child = os.fork()
        if not child:
            try:
                os._exit(outcome(folder.parent, width))
            finally:
                os._exit(OTHER_ERROR)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended in ENDINGS, f"round {number} of width {width}: {ended}"
        counts[ENDINGS[ended]] += 1
        shutil.rmtree(folder.parent)
    with capsys.disabled():
        print(f"\nstore, {width} numbers: {ROUNDS:,} files; {dict(counts)}")
    assert min(counts["read"], counts["refused"]) > ROUNDS / 50 and counts["LMDB's assertion"] < ROUNDS / 100
