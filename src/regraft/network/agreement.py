"""Which engine runs a trunk, in which precision, and the proof that it says what PyTorch says in float32.

The options and a frozen module enter, an `Engine` (see `engines/`) leaves. The
proof, or its failure, is made once, on real images, and kept beside the
converted network; a proof on fewer images than asked for holds for a process.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from regraft.core import files, plugins
from regraft.core.errors import RefusedFile, StoreError, UsageError
from regraft.core.progress import log
from regraft.network import engines
from regraft.network.options import EngineOptions

if TYPE_CHECKING:
    from torch import nn

    from regraft.network.engines import Engine

CHECKED = 16  # images that an engine is checked on
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.98, "int8": 0.8}  # of an image's features and PyTorch's in float32
SURE = 0.2  # by how much a label must lead for the engine to have to name the same one
PROOF, REFUSED = "agreement.json", "refused"
NETWORK = "network"  # the folder in which an engine keeps what it converted

Sample = Callable[[int], np.ndarray]  # gives up to so many squares of real images, (n, S, S, 3) uint8
Judge = Callable[[np.ndarray], np.ndarray]  # a head: features (n, …) → probabilities (n, classes)


class Choice(NamedTuple):
    """An engine's name, and the precision that it runs in.

    tentative: "auto" chose the precision: where it disagrees, float32 takes its place.
    """

    engine: str
    precision: str
    tentative: bool = False


class Started(NamedTuple):
    """An engine, and whether it is proven: not where no image could be read."""

    engine: Engine
    proven: bool


class Disagreement(UsageError):
    """An engine says something else than PyTorch in float32; `said` is the message without the way out."""

    def __init__(self, said: str) -> None:
        super().__init__(f"{said} Use --precision float32, or --engine torch.")
        self.said = said


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
    if engine != "auto":
        return [engine]
    import torch

    return ["torch", "openvino"] if torch.cuda.is_available() else ["openvino", "torch"]


def _possible() -> str:
    found = {name: plugins.load(engines, name).precisions() for name in plugins.names(engines)}
    return " ".join(f"{name}: {', '.join(known) or 'not installed'}." for name, known in found.items())


def start(
    module: nn.Module, size: int, choice: Choice, folder: Path, sample: Sample, at: str, judge: Judge | None = None
) -> Started:
    """Return the engine for a frozen module, checked.

    module: (n, S, S, 3) uint8 → (n, …), in eval mode.
    folder: where what was converted and proven is kept.
    at:     what the module is, for messages.
    judge:  the head on top of it, if there is one: what it is sure of must stay the same.

    Raises Disagreement if what it says of real images is too far from what PyTorch says in float32, RefusedFile if
    that is no number.
    """
    engine: Engine = plugins.load(engines, choice.engine).build(module, size, choice.precision, folder, sample)
    if (choice.engine, choice.precision) == ("torch", "float32"):
        return Started(engine, proven=True)
    about = _about(choice)
    proof = {**about, "network": _fingerprint(folder)}
    if _read(folder / PROOF) == proof:
        return Started(engine, proven=True)
    squares = sample(CHECKED)
    if not len(squares):
        return Started(engine, proven=False)
    _check(engine, module, choice, squares, at, judge)
    if len(squares) == CHECKED:  # fewer prove it for this process alone
        _write(folder / PROOF, proof)
    return Started(engine, proven=True)


def verdict(folder: Path, choice: Choice) -> str | None:
    """Return what is kept in `folder` of a choice: why it was refused, "" if it was proven, None if neither."""
    kept = _read(folder / PROOF)
    if isinstance(kept, dict) and _about(choice).items() <= kept.items():
        return str(kept.get(REFUSED, ""))
    return None


def refuse(folder: Path, choice: Choice, said: str) -> None:
    """Keep in `folder` why a choice was refused."""
    _write(folder / PROOF, {**_about(choice), REFUSED: said})


def hand_over(folder: Path, other: Path) -> None:
    """Move a network that was converted for bfloat16 to where float32 looks for it: it is the same."""
    if not (folder / NETWORK).is_dir():
        return
    try:
        other.mkdir(parents=True, exist_ok=True)
        (folder / NETWORK).rename(other / NETWORK)
    except OSError:  # there is one already, or nothing may be written
        shutil.rmtree(folder / NETWORK, ignore_errors=True)


def _about(choice: Choice) -> dict[str, Any]:
    """Return what a proof, or a refusal, holds for."""
    version = plugins.load(engines, choice.engine).version()
    least = LEAST_COSINE[choice.precision]
    return {"precision": choice.precision, "engine": choice.engine, "version": version, "least": least}


def _fingerprint(folder: Path) -> str:
    """Return the sha256 of the converted network's files, so that a damaged one is not taken for proven."""
    kept = sorted(path for path in (folder / NETWORK).glob("*") if path.is_file())
    return hashlib.sha256("".join(map(files.sha256_file, kept)).encode()).hexdigest()


def run(engine: Engine, squares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the features of any number of squares, (n, *shape) float32; the last batch is filled up with black."""
    features = np.empty((len(squares), *shape), np.float32)
    for start in range(0, len(squares), engine.batch):
        part = squares[start : start + engine.batch]
        black = np.zeros((engine.batch - len(part), *squares.shape[1:]), np.uint8)
        full = np.concatenate([part, black]) if len(black) else part
        features[start : start + engine.batch] = engine(full)[: len(part)]
    return features


def _check(
    engine: Engine, module: nn.Module, choice: Choice, squares: np.ndarray, at: str, judge: Judge | None
) -> None:
    import torch

    from regraft.network.engines import torch as reference

    expected = reference.run(module, torch.from_numpy(squares))
    if not np.isfinite(expected).all():  # an engine may hide it: OpenVINO's ReLU makes 0 of NaN
        raise RefusedFile(f"{at} gives NaN or infinity; expected finite numbers. Choose other --weights.")
    found = run(engine, squares, expected.shape[1:])
    least = float(np.min(cosines(found, expected)))
    log.debug("%s in %s on %s: least cosine with float32 %.5f", at, choice.precision, choice.engine, least)
    if not least >= LEAST_COSINE[choice.precision]:
        raise Disagreement(
            f"{at} says something else in {choice.precision} on {choice.engine} than in float32 on torch: of the "
            f"features of {len(squares)} images the least cosine is {least:.4f}; expected at least "
            f"{LEAST_COSINE[choice.precision]}."
        )
    if judge and (others := _named_otherwise(judge(found), judge(expected))):
        raise Disagreement(
            f"The model on {at} names {others} of {len(squares)} images otherwise in {choice.precision} on "
            f"{choice.engine} than in float32 on torch, though it is sure of them."
        )


def _named_otherwise(found: np.ndarray, expected: np.ndarray) -> int:
    """Return how many images get another label than expected, of those whose expected one leads by SURE."""
    ordered = np.sort(expected, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] >= SURE
    return int(np.sum(sure & (found.argmax(axis=1) != expected.argmax(axis=1))))


def cosines(features: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the cosine of each image's features with those expected, (n,) float64; 1 where both are nothing."""
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
        log.debug("The check is made anew the next time: %s", error)
