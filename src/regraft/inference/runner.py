"""Trunks at work: their engines, started and checked at the first use, and float32 where "auto" chose too little.

A `Trunk` enters and stays what it is; what this process has of it, an engine
and the precision that was settled, is here. A model has one trunk, or joins the
features of several: the square root of each number, with its sign, divided by the
trunk's scale, side by side in one row. The root keeps few large numbers of a row
from outweighing the many small ones: by 5-fold cross-validation of training parts
the log loss of linear heads on two or four joined networks was 3 to 7 % lower on
Pokémon, 2.5 % on CIFAR-10 and within its error on cats-dogs (Perronnin et al.
2010, "Improving the Fisher Kernel", section 3.2).
"""

from __future__ import annotations

import copy
import math
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from regraft.core.progress import log
from regraft.core.threads import after_fork
from regraft.inference import agreement
from regraft.inference.agreement import Disagreement, Probabilities
from regraft.inference.engines import Engine, Sample
from regraft.inference.workaround_openmp_fork import use_one_thread
from regraft.inference.workaround_openvino_fork import never_delete
from regraft.network.trunk import Choice, Tail, Trunk, only


class CutNetwork(NamedTuple):
    """A network that is divided: what runs the frozen part, and the part above it, if that is to be trained."""

    runner: Runner
    tail: Tail | None = None


class Runner:
    """Runs one trunk or several, whose features it joins; several threads may share one.

    each:   the runner of each trunk.
    scales: by which the features of each are divided before they are joined, 1 for a single trunk; (): not known yet.
    roots:  whether square roots are taken of the features before; False in models before format 6.
    """

    def __init__(
        self,
        trunks: Trunk | Sequence[Trunk],
        probabilities_of: Probabilities | None = None,
        scales: Sequence[float] = (),
        *,
        roots: bool = True,
    ) -> None:
        known = (trunks,) if isinstance(trunks, Trunk) else tuple(trunks)
        alone = probabilities_of if len(known) == 1 else None  # its features are not all of a row
        self.each = tuple(TrunkRunner(trunk, alone) for trunk in known)
        self.scales, self.roots = (1.0,) if len(known) == 1 else tuple(scales), roots and len(known) > 1

    @property
    def trunks(self) -> tuple[Trunk, ...]:
        """The trunks, in the precision in which they run, as far as that is settled."""
        return tuple(runner.trunk for runner in self.each)

    @property
    def trunk(self) -> Trunk:
        """The trunk, if there is one; raises UsageError if there are several."""
        return only(self.trunks)

    @property
    def batch(self) -> int:
        """How many images the engines take at once, when they are started."""
        return max(runner.batch for runner in self.each)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one image's features, joined if there are several trunks."""
        if len(self.each) == 1:
            return self.trunk.output_shape
        return (sum(math.prod(trunk.output_shape) for trunk in self.trunks),)

    def only(self, numbers: Sequence[int]) -> Runner:
        """Return what runs only the trunks with these numbers."""
        chosen = copy.copy(self)
        chosen.each = tuple(self.each[number] for number in numbers)
        return chosen

    def scaled(self, scales: Sequence[float]) -> Runner:
        """Return the same with these scales."""
        chosen = copy.copy(self)
        chosen.scales = tuple(scales)
        return chosen

    def join(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Return the features of the same images by each trunk, (n, …) each, as one row for each image, scaled."""
        if len(self.each) == 1:
            return features[0]
        scales = self.scales or [1.0] * len(features)
        parts = [
            self.rooted(rows).reshape(len(rows), math.prod(rows.shape[1:])) / np.float32(scale)
            for rows, scale in zip(features, scales, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def rooted(self, features: np.ndarray) -> np.ndarray:
        """Return the square roots of features, with their signs, if they are to be taken."""
        return np.copysign(np.sqrt(np.abs(features)), features) if self.roots else features

    def __call__(self, *images: np.ndarray) -> np.ndarray:
        """Return the features of images, (n, S, S, 3) uint8, preprocessed for each trunk → (n, …) float32."""
        return self.join([runner(inputs) for runner, inputs in zip(self.each, images, strict=True)])


class TrunkRunner:
    """Runs a trunk; several threads may share one.

    trunk:            in the precision in which it runs, as far as that is settled.
    probabilities_of: a model's, if there is one, features (n, …) → (n, classes): its confident labels must be the same
                      on every engine.
    """

    def __init__(self, trunk: Trunk, probabilities_of: Probabilities | None = None) -> None:
        self.trunk = trunk
        self.probabilities_of = probabilities_of
        self._forget_engine()
        _runners.add(self)

    def _forget_engine(self) -> None:
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._checked = False

    @property
    def batch(self) -> int:
        """How many images the engine takes at once, when it is started."""
        return self._engine.batch if self._engine else 1

    def settle(self, folder_of: Callable[[Trunk], Path], sample: Sample) -> Trunk:
        """Return the trunk in the precision in which it runs: float32, where "auto" chose one in which it disagrees.

        The precision is part of the digest: it is settled before a place in the store is.

        folder_of: returns the folder in which a trunk's converted network is kept, its own.
        sample:    as for `start`.
        """
        with self._lock:
            trunk = self.trunk
            if trunk.choice.tentative and not self._checked:
                refusal = self._refusal(folder_of(trunk), sample)
                if refusal:
                    log.debug("%s It is computed in float32.", refusal)
                    self.trunk = trunk.on(Choice(trunk.choice.engine, "float32"))
                    agreement.hand_over(folder_of(trunk), folder_of(self.trunk))
            return self.trunk

    def _refusal(self, folder: Path, sample: Sample) -> str:
        """Return how the features disagree, "" if they do not: as it was found before, or is now."""
        known = agreement.outcome(folder, self.trunk.choice)
        if known is not None:
            return known
        try:
            self.start(folder, sample)
        except Disagreement as error:
            agreement.refuse(folder, self.trunk.choice, error.reason)
            name, precision = self.trunk.name, self.trunk.choice.precision
            log.info("%s is computed in float32: %s is faster and not precise enough for it.", name, precision)
            return error.reason
        return ""

    def start(self, folder: Path, sample: Sample) -> None:
        """Make the engine ready, if it is not yet: convert the network, and check the features of real images.

        folder: where the converted network is kept, this trunk's own.
        sample: gives up to so many of the images that it is about to see.

        Raises Disagreement (see `agreement`).
        """
        with self._lock:
            if self._engine is None or not self._checked:
                self._engine, self._checked = agreement.start(self.trunk, folder, sample, self.probabilities_of)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the features of preprocessed images: (n, S, S, 3) uint8 → (n, …) float32; several threads may."""
        if self._engine is None:
            with tempfile.TemporaryDirectory() as folder:
                self.start(Path(folder), lambda count: images[:count])
        return agreement.run(cast("Engine", self._engine), images, self.trunk.output_shape)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is this process's own."""
        return {"trunk": self.trunk, "probabilities_of": self.probabilities_of}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


_runners: weakref.WeakSet[TrunkRunner] = weakref.WeakSet()


@after_fork
def _start_again() -> None:
    """Have each runner make an engine of its own: the parent's has its threads there, and its lock may be held."""
    use_one_thread()
    for runner in list(_runners):
        never_delete(runner._engine)
        runner._forget_engine()
