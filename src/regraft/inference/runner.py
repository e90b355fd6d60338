"""A trunk at work: its engine, started and checked at the first use, and float32 where "auto" chose too little.

A `Trunk` enters and stays what it is; what this process has of it, an engine
and the precision that was settled, is here.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable
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
from regraft.network.trunk import Choice, Tail, Trunk


class CutNetwork(NamedTuple):
    """A network that is divided: what runs the frozen part, and the part above it, if that is to be trained."""

    runner: Runner
    tail: Tail | None = None


class Runner:
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
                    log.info("%s It is computed in float32.", refusal)
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


_runners: weakref.WeakSet[Runner] = weakref.WeakSet()


@after_fork
def _start_again() -> None:
    """Have each runner make an engine of its own: the parent's has its threads there, and its lock may be held."""
    use_one_thread()
    for runner in list(_runners):
        never_delete(runner._engine)
        runner._forget_engine()
