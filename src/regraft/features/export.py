"""Stored features as one `.npz` file, for NumPy and everything that reads it.

The arrays are `features` (n, …) float32, and `ids`, `paths`, `labels`, `parts` (n,) text, row by row alike; besides,
`view_1`, `view_2`, … (m, …) float32, where augmented views are stored: of the m rows of the training part, or of all
rows if there are no parts. Features are written a stretch at a time, so that memory stays flat.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from regraft.core import files
from regraft.features.extract import Features

ROWS = 256  # read and written at a time


def write(features: Features, path: Path) -> None:
    """Write the features with their ids, paths, labels and parts; the file appears whole or not at all."""
    rows = features.rows
    training = features.part("train") if any(row.part for row in rows) else features
    columns = {
        "ids": [row.id for row in rows],
        "paths": [row.path for row in rows],
        "labels": [row.label or "" for row in rows],
        "parts": [row.part or "" for row in rows],
    }
    with files.replacing_file(path) as fresh, zipfile.ZipFile(fresh, "w") as archive:
        _write(archive, "features", features)
        for number, view in enumerate(training.views, start=1):
            _write(archive, f"view_{number}", view)
        for name, values in columns.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, np.array(values, dtype=np.str_))


def _write(archive: zipfile.ZipFile, name: str, features: Features) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": features.shape}
        np.lib.format.write_array_header_2_0(member, header)
        for start in range(0, len(features), ROWS):
            member.write(features[start : start + ROWS].astype("<f4", copy=False).tobytes())
