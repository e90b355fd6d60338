"""Files by path or URL, here or on an object store: pyarrow's file systems, and fsspec's behind them.

A text enters, a pyarrow FileSystem and the path in it leave. An object store has no rename: an object appears whole
when it has arrived, or not at all. On a disk, `write` sees to the same.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from regraft.core.errors import StoreError, UsageError, first_line
from regraft.core.files import write_file

PYARROW = ("s3", "gs", "gcs", "abfs", "abfss", "file")  # schemes whose file systems come with pyarrow
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://")
_PASSWORD = re.compile(r"//[^/@]*@")


class StoragePath(NamedTuple):
    """A file or a folder: the file system, the path in it, and the URL or path that named it."""

    system: Any
    path: str
    url: str

    def __truediv__(self, name: str) -> StoragePath:
        """Return what is called `name` in the folder."""
        return StoragePath(self.system, f"{self.path.rstrip('/')}/{name}", _join(self.url, name))

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine."""
        return bool(self.system.type_name == "local")

    def __str__(self) -> str:
        """Return the URL without what must not be shown."""
        return _PASSWORD.sub("//", self.url.partition("?")[0])


def is_url(text: object) -> bool:
    """Whether a text is a URL, not a path; `C:\\photos` is a path."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def storage_path(url: str | Path) -> StoragePath:
    """Return what a path or a URL names; it need not exist.

    Raises UsageError if pyarrow, or what fsspec needs for this kind of URL, is not installed.
    """
    try:
        from pyarrow import fs
    except ImportError as error:
        raise UsageError(f"{url} needs pyarrow: `pip install 'regraft[parquet]'`.") from error
    text = str(url)
    if not is_url(text):
        return StoragePath(fs.LocalFileSystem(), str(Path(text).absolute()), text)
    scheme = _SCHEME.match(text)[1]  # type: ignore[index]
    try:
        if scheme in PYARROW:
            system, path = fs.FileSystem.from_uri(text)
            return StoragePath(system, path, text)
        import fsspec

        system, path = fsspec.core.url_to_fs("abfs://" + text[5:] if scheme == "az" else text)
        return StoragePath(fs.PyFileSystem(fs.FSSpecHandler(system)), path, text)
    except (ImportError, ValueError, OSError) as error:
        raise UsageError(f"{_PASSWORD.sub('//', text)} can't be opened: {first_line(error)}") from error


def write(target: StoragePath, content: bytes) -> None:
    """Write a file: a reader sees the whole of it or none; raise StoreError if the disk or the object store refuses."""
    if target.is_local:
        write_file(Path(target.path), content)
        return
    with refusals(target), target.system.open_output_stream(target.path) as file:
        file.write(content)


def read(source: StoragePath) -> bytes | None:
    """Return the bytes of a file, None if there is none; raise StoreError if it can't be read."""
    with refusals(source):
        try:
            with _opened(source) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None


def _opened(source: StoragePath) -> Any:
    """Open a file so that it is read by one request; fsspec's may not know their size, and are read to their end."""
    if source.system.type_name.startswith("py::"):
        return source.system.open_input_stream(source.path, buffer_size=0)
    return source.system.open_input_file(source.path)


def listing(folder: StoragePath) -> list[tuple[str, int]]:
    """Return the files below a folder, by their path in it, sorted, and their sizes; none if there is no folder."""
    from pyarrow import fs

    with refusals(folder):
        infos = folder.system.get_file_info(fs.FileSelector(folder.path, recursive=True, allow_not_found=True))
    start = len(folder.path.rstrip("/")) + 1
    return sorted((info.path[start:], info.size or 0) for info in infos if info.type == fs.FileType.File)


@contextlib.contextmanager
def refusals(what: StoragePath) -> Iterator[None]:
    """Turn what a file system refuses into StoreError, once, with the name of what was asked for."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError | FileNotFoundError):
            raise
        raise StoreError(f"{what} can't be read or written: {first_line(error)}") from error


def _join(url: str, name: str) -> str:
    path, mark, query = url.partition("?") if is_url(url) else (url, "", "")
    return f"{path.rstrip('/')}/{name}{mark}{query}"
