"""Pictures that lie in memory, for tests that need to know which were read, in what order, by whom."""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from regraft.data.index import Row


def png(seed):
    """The bytes of a noisy picture, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + seed % 7, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def cut_short(seed):
    return png(seed)[:2000]


@dataclass(frozen=True)
class Memory:
    """A location that holds its bytes itself and notes each reading; `error` is raised instead."""

    name: str
    content: bytes
    error: BaseException | None = None
    read_names: ClassVar[list[str]] = []
    threads: ClassVar[set[int]] = set()

    def read(self):
        self.read_names.append(self.name)
        self.threads.add(threading.get_ident())
        if self.error:
            raise self.error
        return self.content

    def stamp(self):
        return 0

    @classmethod
    def forget(cls):
        cls.read_names.clear()
        cls.threads.clear()


def row(name, content, error=None, **about):
    return Row(path=name, location=Memory(name, content, error), id=hashlib.sha256(content).hexdigest(), **about)


def pictures(count, first=0, **about):
    return [row(f"{seed}.png", png(seed), **about) for seed in range(first, first + count)]
