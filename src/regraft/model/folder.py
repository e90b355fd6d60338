"""The model folder on the disk: its files, written whole or not at all, and checked before anything of it is believed.

    model.json               format, classes, backbone, cut, preprocessing, head, options, versions, history, measures
    network.safetensors      the frozen part (or several, joined), and above it the tail if one was trained
    head.safetensors         the head
    images.csv               the images of the run by content: id, label, part
    predictions.safetensors  what the model was measured by, if it was: ids and probabilities
    evidence.safetensors     what tells a picture of none of the classes, see `evidence`
    calibration.safetensors  what images that were not trained on were given for their true label, see `calibration`
    SHA256SUMS               checksums of the files above (`sha256sum -c SHA256SUMS` agrees)
    README.md                the model card, for people and model hubs; it may be edited

It is never a pickle and runs no code that it carries. A folder that is
edited, cut short, foreign or from a later format is refused. What the files
mean is left to `model`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from regraft.core import files
from regraft.core.errors import RefusedFile, UsageError
from regraft.data.index import PARTS
from regraft.model.calibration import COVERAGES, Calibrations
from regraft.network.tensors import TensorFile

FORMAT = "regraft model"
# 1 had softmax alone; 2 neither the shapes of features nor predictions; 3 a single trunk; 4 no temperature;
# 5 no square roots of joined features
FORMAT_VERSION = 6
DESCRIPTION, NETWORK, HEAD, IMAGES = "model.json", "network.safetensors", "head.safetensors", "images.csv"
PREDICTIONS, EVIDENCE = "predictions.safetensors", "evidence.safetensors"
CALIBRATION = "calibration.safetensors"
OPTIONAL = (PREDICTIONS, EVIDENCE, CALIBRATION)
FILES = (DESCRIPTION, NETWORK, HEAD, IMAGES)  # that every folder has
SUMS, CARD = "SHA256SUMS", "README.md"
CARD_MARK = "library_name: regraft"  # is in each model card
LARGEST_WEIGHT = 1e20
OBJECTS = ("options", "chosen", "measures", "versions")  # of the description

Images = Mapping[str, tuple[str, str]]  # id → (label, part)


# Writing


def check_target(folder: Path) -> None:
    """Raise UsageError if `folder` can't become a model without destroying something else."""
    if not folder.exists() or (folder.is_dir() and _is_own(folder) and folder.resolve() != Path.cwd()):
        return
    raise UsageError(f"{folder} already exists and is not a regraft model; nothing was written. Name another folder.")


def _is_own(folder: Path) -> bool:
    """Tell an empty folder, or one with a model and nothing else, from what must not be replaced."""
    names = {path.name for path in folder.iterdir()}
    if DESCRIPTION in names and names <= {*FILES, *OPTIONAL, SUMS, CARD}:
        if CARD in names and CARD_MARK not in (folder / CARD).read_text("utf-8", errors="replace"):
            return False
        return f'"format": "{FORMAT}"' in (folder / DESCRIPTION).read_text("utf-8", errors="replace")[:1000]
    return not names


def write(folder: Path, contents: Mapping[str, bytes], card: str = "", *, overwrite: bool) -> None:
    """Write the files of a model and their checksums, whole or not at all.

    contents:  by the files' names.
    card:      what README.md says, if anything.
    overwrite: whether a model that is there is replaced.
    Raises UsageError if `folder` is something else, StoreError if the disk refuses.
    """
    check_target(folder)
    if not overwrite and folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} already holds a model; nothing was written. Name another folder, or replace it: "
            "save(folder, overwrite=True)."
        )
    with files.replacing_folder(folder) as fresh:
        for name, content in contents.items():
            files.write_file(fresh / name, content)
        sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
        files.write_file(fresh / SUMS, sums.encode())
        if card:
            files.write_file(fresh / CARD, card.encode())


def encode_description(description: Mapping[str, Any]) -> bytes:
    """Return the description as JSON, the format first."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    return json.dumps({**head, **description}, indent=2, ensure_ascii=False).encode()


def encode_images(images: Images) -> bytes:
    """Return the images of the run as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "label", "part"))
    writer.writerows((identifier, label, part) for identifier, (label, part) in images.items())
    return text.getvalue().encode()


def encode_predictions(
    ids: Sequence[str], probabilities: np.ndarray, calibrations: Calibrations | None = None
) -> bytes:
    """Return the ids, 32 bytes each, the probabilities, (n, n_classes) float64, and by what they were calibrated."""
    digests = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(len(ids), 32)
    arrays = {"probabilities": probabilities, **(calibrations._asdict() if calibrations else {})}
    content: bytes = safetensors.numpy.save(
        {
            "ids": np.array(digests),
            **{name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()},
        }
    )
    return content


# Reading


def read(folder: Path) -> dict[str, Any]:
    """Return the description of a model folder, all of whose files have their checksums; raise RefusedFile if not."""
    description = _description(folder)
    _check_sums(folder)
    return description


def _description(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise RefusedFile(f"No model at {folder}. Train one with `regraft train SOURCE -o {folder}`.")
    path = folder / DESCRIPTION
    if not path.is_file():
        raise RefusedFile(f"{folder} is not a regraft model: it has no {DESCRIPTION}.")
    try:
        description = json.loads(path.read_bytes())
        json.dumps(description, ensure_ascii=False).encode()  # raises ValueError for half a character
    except (ValueError, RecursionError):
        raise RefusedFile(f"{path} is damaged: it is not JSON.") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise RefusedFile(f"{folder} is not a regraft model: {DESCRIPTION} has another format.")
    for name in OBJECTS:
        if not isinstance(description.get(name, {}), dict):
            raise RefusedFile(f"{path} is damaged: its {name} are {repr(description[name])[:40]}, not a JSON object.")
    version = description.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise RefusedFile(f"{folder} is not a regraft model: its format version is {version!r}.")
    if version > FORMAT_VERSION:
        raise RefusedFile(
            f"{folder} was made by a later regraft (format {version}; this one reads up to {FORMAT_VERSION}). "
            "Update regraft."
        )
    return description


def _check_sums(folder: Path) -> None:
    path = folder / SUMS
    if not path.is_file():
        raise RefusedFile(f"{folder} is cut short: {SUMS} is missing. Train it again, or copy it again.")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    names = [*FILES, *(name for name in OPTIONAL if name in sums or (folder / name).exists())]
    for name in names:
        if not (folder / name).is_file() or name not in sums:
            raise RefusedFile(f"{folder} is cut short: {name} is missing. Train it again, or copy it again.")
        if files.sha256_file(folder / name) != sums[name]:
            raise RefusedFile(f"{folder / name} was changed after it was saved. Train it again, or copy it again.")


def read_images(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the images of the run; raise RefusedFile for an unknown part."""
    with (folder / IMAGES).open(encoding="utf-8", newline="") as file:
        images = {row["id"]: (row["label"], row["part"]) for row in csv.DictReader(file)}
    if odd := {part for _, part in images.values()} - set(PARTS):
        raise RefusedFile(f"{folder / IMAGES} names unknown parts: {', '.join(sorted(odd))}.")
    return images


def read_head(folder: Path) -> dict[str, np.ndarray]:
    """Return the head's weights; raise RefusedFile if one is not finite, or so large that logits would not be."""
    weights = dict(TensorFile(folder / HEAD))
    if not all((np.abs(tensor) <= LARGEST_WEIGHT).all() for tensor in weights.values()):
        raise RefusedFile(f"{folder / HEAD} holds NaN, infinity or numbers above {LARGEST_WEIGHT:g}.")
    return weights


def read_predictions(folder: Path, n_classes: int) -> tuple[tuple[str, ...], np.ndarray, Calibrations | None] | None:
    """Return ids, probabilities, (n, n_classes), and by what they were calibrated, if the folder has them.

    Raises RefusedFile if they are off.
    """
    if not (folder / PREDICTIONS).exists():
        return None
    tensors = dict(TensorFile(folder / PREDICTIONS))
    ids, probabilities = tensors["ids"], tensors["probabilities"]
    if ids.shape != (len(probabilities), 32) or ids.dtype != np.uint8 or probabilities.shape[1:] != (n_classes,):
        raise RefusedFile(f"{folder / PREDICTIONS} has not one row of {n_classes} probabilities for each image.")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN is refused as well
        raise RefusedFile(f"{folder / PREDICTIONS} has a probability that is not from 0 to 1.")
    names = tuple(row.tobytes().hex() for row in ids)
    return names, probabilities.astype(np.float64), _calibrations(tensors, folder, len(ids))


def _calibrations(tensors: Mapping[str, np.ndarray], folder: Path, n: int) -> Calibrations | None:
    if "temperatures" not in tensors:
        return None
    calibrations = Calibrations(*(np.asarray(tensors[name], np.float64) for name in Calibrations._fields))
    shapes = calibrations.temperatures.shape == (n,) and calibrations.least.shape == (n, len(COVERAGES))
    if not shapes or not ((calibrations.temperatures >= 1e-3) & (calibrations.temperatures <= 1e3)).all():
        raise RefusedFile(f"{folder / PREDICTIONS} has not a temperature, from 0.001 to 1000, for each image.")
    return calibrations


def read_true_probabilities(folder: Path) -> np.ndarray | None:
    """Return the rising probabilities of true labels, if the folder has them; raise RefusedFile if they are off."""
    if not (folder / CALIBRATION).exists():
        return None
    rising = np.asarray(TensorFile(folder / CALIBRATION)["true_probabilities"])
    if rising.shape != (rising.size,) or not ((rising >= 0) & (rising <= 1)).all() or (np.diff(rising) < 0).any():
        raise RefusedFile(f"{folder / CALIBRATION} does not hold rising numbers from 0 to 1.")
    return rising.astype(np.float64)
