"""Files that are written for the user: a foreign file is never replaced, one of regraft's own when that is asked for.

Each file carries a mark by which it is known again, see `MARKS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regraft.core.errors import UsageError

# What a file of regraft's has within its first or its last READ bytes, by its ending.
MARKS = {
    ".html": (b'<meta name="generator" content="regraft">',),
    ".svg": (b"<!-- made by regraft -->",),
    ".json": (b'"made_by": "regraft"',),
    ".npz": (b"made by regraft",),  # the archive's comment
    ".parquet": (b"made by regraft",),  # in its metadata
    ".csv": (
        b"path,status,error",
        b"finding,number,path",
        b"number,path,label,predicted",
    ),  # the first columns, as nothing else may stand in a CSV
}
READ = 1 << 16


def check(path: Path | None, endings: Sequence[str], *, overwrite: bool) -> None:
    """Raise UsageError if a file must not be written to `path`; to be asked before anything is computed for it.

    endings:   those that its name may have, of MARKS.
    overwrite: whether a file that regraft wrote may be replaced.
    """
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise UsageError(f"The file to write is {path}; expected a name that ends in {' or '.join(endings)}.")
    if not path.exists():
        return
    if not _is_own(path):
        raise UsageError(f"{path} already exists and was not written by regraft. Name another file, or move that one.")
    if not overwrite:
        raise UsageError(f"{path} already exists. Add --overwrite to replace it, or name another file.")


def _is_own(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(READ)
        file.seek(max(0, path.stat().st_size - READ))
        end = file.read()
    marks = MARKS[path.suffix.lower()]
    if path.suffix.lower() == ".csv":
        return start.startswith(marks)
    return any(mark in part for mark in marks for part in (start, end))
