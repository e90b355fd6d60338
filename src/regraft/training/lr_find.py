"""A learning rate to begin with: the rate is swept upwards, the loss recorded, and the weights are restored.

Source: Smith 2017, arXiv:1506.01186, section 3.3, with one step a rate, as fastai's `lr_find` has it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from regraft.core.rng import generator
from regraft.training import loop
from regraft.training.checkpoint import State
from regraft.training.devices import device_of
from regraft.training.examples import Examples
from regraft.training.optimizers import Group
from regraft.training.options import FitOptions

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
MEMORY = 0.9  # of the running mean by which divergence is detected
DIVERGED = 4  # times the lowest running mean
WIDTH = 3  # steps, a quarter of a decade: the standard deviation of the Gaussian that smooths the losses
FALL = 0.9  # fraction of its first value to which the loss must fall for a suggestion


@dataclass(frozen=True)
class Sweep:
    """The loss by the learning rate, and a suggestion.

    rates:      (n,) rising, each used for one step, up to where the loss diverged.
    losses:     (n,) the loss of the batch of that step, smoothed over a quarter of a decade.
    suggestion: the rate at which the loss fell most steeply, over the logarithm of the rate; None if it never fell to
                nine tenths of its first value.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggestion: float | None


def lr_find(
    module: nn.Module,
    train: Examples,
    options: FitOptions,
    *,
    frozen_norms: Sequence[nn.Module] = (),
    bfloat16: bool = False,
    groups: Sequence[Group] | None = None,
) -> Sweep:
    """Return the loss while the learning rate rises from 1e-7 to 10 in at most 100 steps.

    The arguments are those of `loop.train`; of the options the rate, its schedule and the epochs are not used. The
    module ends in eval mode with the weights that it had before, also after an error.
    """
    from scipy.ndimage import gaussian_filter1d

    state = loop.begin(module, train, options, frozen_norms=frozen_norms, bfloat16=bfloat16, groups=groups)
    rates = np.geomspace(LOWEST, HIGHEST, STEPS)
    try:
        with loop.seeded(options.seed, "sweep", device=device_of(module)):
            losses = list(_until_diverged(_losses(state, train.in_memory(), rates)))
    finally:
        module.load_state_dict(state.best)
        module.eval()
    smooth = gaussian_filter1d(np.array(losses), WIDTH, mode="nearest") if losses else np.empty(0)
    return Sweep(rates[: len(losses)], smooth, suggest(rates[: len(losses)], smooth))


def _losses(state: State, train: Examples, rates: np.ndarray) -> Iterator[float]:
    """Yield the loss of one step at each rate, repeating the examples as often as needed."""
    remaining = iter(rates.tolist())
    seed, evenly = state.options.seed, state.options.balance == "oversample"
    rows = state.options.rows_a_step(len(train))
    for number in itertools.count(1):
        loop.thaw(state, number)
        order = generator(seed, "sweep", number).permutation(len(train))
        for inputs, labels in train.epoch(number, seed, evenly=evenly).batches(rows, order):
            if (rate := next(remaining, None)) is None:
                return
            yield loop.step(state, inputs, labels, rate)[0]


def _until_diverged(losses: Iterator[float]) -> Iterator[float]:
    """Yield losses until their running mean is DIVERGED times its lowest, or one is not finite."""
    mean, lowest = 0.0, math.inf
    for count, loss in enumerate(losses, 1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        now = mean / (1 - MEMORY**count)  # corrected for its start at 0
        lowest = min(lowest, now)
        if not now <= DIVERGED * lowest:
            return
        yield loss


def suggest(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Return the rate at which smooth losses fall most steeply over its logarithm, before their lowest; or None.

    A loss that falls most steeply at the first rate falls whatever the rate is, as on the first batches of a new epoch.
    """
    lowest = int(np.argmin(losses)) if len(losses) else 0
    if lowest == 0 or losses[lowest] > FALL * losses[0]:
        return None
    slopes = np.gradient(losses, np.log(rates))[:lowest]
    steepest = int(np.argmin(slopes))
    return float(rates[steepest]) if steepest else None
