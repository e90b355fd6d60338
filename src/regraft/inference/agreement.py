"""Which engine runs a trunk, in which precision, and the check that its features agree with PyTorch's in float32.

The options and a trunk enter, an `Engine` (see `engines/`) leaves. The check is
made once, on real images; that it succeeded, or why it failed, is kept beside
the converted network. A check on fewer images than wanted holds for a process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regraft.core import files, plugins
from regraft.core.errors import RefusedFile, StoreError, UsageError
from regraft.core.progress import log
from regraft.inference import engines
from regraft.inference.engines import CONVERTED, FINGERPRINT, Engine, Sample
from regraft.inference.options import EngineOptions
from regraft.network.trunk import Choice, Trunk

CHECKED = 16  # images that an engine is checked on
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.98, "int8": 0.8}  # of an image's features and PyTorch's in float32
CONFIDENT = 0.2  # by how much the most probable label must lead for the engine to have to name the same one
PROOF, REFUSED = "agreement.json", "refused"

Probabilities = Callable[[np.ndarray], np.ndarray]  # a model's: features (n, …) → (n, classes)


class Started(NamedTuple):
    """An engine, and whether it was checked: not where no image could be read."""

    engine: Engine
    checked: bool


class Disagreement(UsageError):
    """The features of an engine differ from PyTorch's in float32; `reason` is the message without what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} Use --precision float32, or --engine torch.")
        self.reason = reason


def choose(options: EngineOptions) -> Choice:
    """Return the engine and precision that `options` mean on this machine.

    "auto" is PyTorch where there is a GPU, else OpenVINO where it is installed; and the engine's best precision, int8
    never. Raises UsageError for what this machine can't do.
    """
    for name in _candidates(options.engine):
        possible: list[str] = plugins.load(engines, name).precisions()
        if options.precision == "auto" and possible:
            return Choice(name, possible[0], tentative=possible[0] != "float32")
        if options.precision in possible:
            return Choice(name, options.precision)
    asked = f"--engine {options.engine}" if options.engine != "auto" else "No engine here"
    raise UsageError(f"{asked} can compute in {options.precision} on this machine. {_possible()}")


def _candidates(engine: str) -> list[str]:
    from regraft.inference.engines import torch

    if engine != "auto":
        return [engine]
    return ["torch", "openvino"] if torch.has_gpu() else ["openvino", "torch"]


def _possible() -> str:
    precisions = {name: plugins.load(engines, name).precisions() for name in plugins.names(engines)}
    return " ".join(f"{name}: {', '.join(known) or 'not installed'}." for name, known in precisions.items())


def start(trunk: Trunk, folder: Path, sample: Sample, probabilities_of: Probabilities | None = None) -> Started:
    """Return the engine that a trunk has chosen, checked.

    folder:           where what was converted, and the outcome of the check, is kept: this trunk's own.
    sample:           gives up to so many of the images that it is about to see.
    probabilities_of: a model's, if there is one: its confident labels must be those that it has on PyTorch.

    Raises Disagreement if the features of real images are too far from PyTorch's in float32, RefusedFile if those are
    not finite.
    """
    choice = trunk.choice
    engine: Engine = plugins.load(engines, choice.engine).build(
        lambda: trunk.module, trunk.preprocess.size, choice.precision, folder, sample
    )
    if (choice.engine, choice.precision) == ("torch", "float32"):
        return Started(engine, checked=True)
    proof = {**_about(choice), "network": _fingerprint(folder)}
    if _read(folder / PROOF) == proof:
        return Started(engine, checked=True)
    images = sample(CHECKED)
    if not len(images):
        return Started(engine, checked=False)
    _check(engine, trunk, images, probabilities_of)
    if len(images) == CHECKED:  # fewer count for this process alone
        _write(folder / PROOF, proof)
    return Started(engine, checked=True)


def outcome(folder: Path, choice: Choice) -> str | None:
    """Return what is kept in `folder` of a choice: why it was refused, "" if it was accepted, None if neither."""
    kept = _read(folder / PROOF)
    if isinstance(kept, dict) and _about(choice).items() <= kept.items():
        return str(kept.get(REFUSED, ""))
    return None


def refuse(folder: Path, choice: Choice, reason: str) -> None:
    """Keep in `folder` why a choice was refused."""
    _write(folder / PROOF, {**_about(choice), REFUSED: reason})


def hand_over(folder: Path, other: Path) -> None:
    """Move a network that was converted for bfloat16 to where float32 looks for it: it is the same."""
    if not (folder / CONVERTED).is_dir():
        return
    try:
        other.mkdir(parents=True, exist_ok=True)
        (folder / CONVERTED).rename(other / CONVERTED)
    except OSError:  # there is one already, or nothing may be written
        shutil.rmtree(folder / CONVERTED, ignore_errors=True)


def _about(choice: Choice) -> dict[str, Any]:
    """Return what the outcome of a check holds for."""
    version = plugins.load(engines, choice.engine).version()
    least = LEAST_COSINE[choice.precision]
    return {"precision": choice.precision, "engine": choice.engine, "version": version, "least": least}


def _fingerprint(folder: Path) -> str:
    """Return what tells the converted network, which its engine has checked against it, from others; "" for none."""
    path = folder / CONVERTED / FINGERPRINT
    return path.read_text("utf-8") if path.is_file() else ""


def run(engine: Engine, images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the features of any number of images, (n, *shape) float32; the last batch is filled up with black ones."""
    features = np.empty((len(images), *shape), np.float32)
    for start in range(0, len(images), engine.batch):
        part = images[start : start + engine.batch]
        black = np.zeros((engine.batch - len(part), *images.shape[1:]), np.uint8)
        batch = engine(np.concatenate([part, black]) if len(black) else part)
        if batch.shape[1:] != shape:
            raise RefusedFile(f"The network's features have the shape {batch.shape[1:]}; expected {shape}.")
        features[start : start + engine.batch] = batch[: len(part)]
    return features


def _check(engine: Engine, trunk: Trunk, images: np.ndarray, probabilities_of: Probabilities | None) -> None:
    import torch

    from regraft.inference.engines import torch as reference

    expected = reference.run(trunk.module, torch.from_numpy(images))
    if not np.isfinite(expected).all():  # an engine may hide it: OpenVINO's ReLU makes 0 of NaN
        raise RefusedFile(f"{trunk.name} gives NaN or infinity; expected finite numbers. Choose other --weights.")
    features = run(engine, images, expected.shape[1:])
    least, precision = float(np.min(cosines(features, expected))), trunk.choice.precision
    where = f"in {precision} on {trunk.choice.engine}"
    log.debug("%s %s: least cosine with float32 %.5f", trunk.name, where, least)
    if not least >= LEAST_COSINE[precision]:
        raise Disagreement(
            f"The features of {trunk.name} {where} differ from those in float32 on torch: of {len(images)} images the "
            f"least cosine is {least:.4f}; expected at least {LEAST_COSINE[precision]}."
        )
    if probabilities_of and (others := _other_labels(probabilities_of(features), probabilities_of(expected))):
        raise Disagreement(
            f"The model on {trunk.name} gives {others} of {len(images)} images another label {where} than in float32 "
            "on torch, though it is confident of them."
        )


def _other_labels(probabilities: np.ndarray, expected: np.ndarray) -> int:
    """Return how many images get another label than expected, of those whose expected one leads by CONFIDENT."""
    ordered = np.sort(expected, axis=1)
    confident = ordered[:, -1] - ordered[:, -2] >= CONFIDENT
    return int(np.sum(confident & (probabilities.argmax(axis=1) != expected.argmax(axis=1))))


def cosines(features: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the cosine of each image's features with those expected, (n,) float64; 1 where both are 0."""
    first, second = (values.reshape(len(values), -1).astype(np.float64) for values in (features, expected))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    same = np.all(first == second, axis=1)
    products: np.ndarray = np.einsum("ij,ij->i", first, second)
    return np.where(same, 1.0, products / np.where(lengths > 0, lengths, 1))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write(path: Path, proof: dict[str, Any]) -> None:
    try:
        files.write_file(path, json.dumps(proof).encode())
    except StoreError as error:
        log.debug("The check is made again the next time: %s", error)
