"""libtiff writes what is wrong with a file to stderr, and reads on: it is heard here instead.

The bug, of most programs that use libtiff: https://github.com/openslide/openslide/issues/36.
Pillow leaves libtiff's errors to its default, the stderr of the whole process:
a line for each row of pixels of a damaged fax. And it takes the pixels of a
row whose code is wrong for good. While a thread listens, its errors are
collected; those of others are dropped.

Needed until Pillow hears libtiff's errors itself (TIFFOpenOptions, since
libtiff 4.5). Where the library can't be
reached (a static one, on Windows) all stays as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
_thread = threading.local()


def _hear(_module: bytes | None, message: bytes | None, _values: int | None) -> None:
    errors = getattr(_thread, "errors", None)
    if errors is not None and message:
        errors.append(message.decode("ascii", "replace"))


_handler = _HANDLER(_hear)  # as long as libtiff may call it


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Yield a list to which libtiff's errors in this thread are added, as patterns of printf's ("… at line %u")."""
    _install()
    errors: list[str] = []
    _thread.errors = errors
    try:
        yield errors
    finally:
        _thread.errors = None


@functools.cache
def _install() -> None:
    from PIL import _imaging

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(_handler)
