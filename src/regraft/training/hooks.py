"""Hooks: what a user's own code does between the epochs of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from regraft.training.history import History


@dataclass(frozen=True)
class TrainingState:
    """What a hook sees: to read, not to change.

    phase:   what is trained: "head", or "tail", the network above the cut with its head.
    epoch:   the epoch that begins or has ended, from 1, counted on from phase to phase; in `on_train_begin` and
             `on_train_end` how many are done.
    history: what was measured so far, through all phases.
    module:  what is trained, with its weights as they are now. That of an mlp head takes standardised features.
    """

    phase: str
    epoch: int
    history: History
    module: nn.Module


class Hooks:
    """Called by the training loop, once for each phase that is trained in epochs; a subclass overrides what it needs.

        class Print(regraft.Hooks):
            def on_epoch_end(self, state):
                print(state.epoch, state.history.rows[-1].loss)

    By default each does nothing. An error that one raises ends the training. A run that was killed and is resumed calls
    them for the epochs that it trains itself, not for those of the checkpoint; one that was finished calls none. A run
    is known again by its data and options, not by its hooks: one that changes the module trains another model under the
    same name.
    """

    def on_train_begin(self, state: TrainingState) -> None:
        """Before the first epoch of a phase, or the first after a resumed run's checkpoint."""

    def on_epoch_begin(self, state: TrainingState) -> None:
        """Before each epoch."""

    def on_epoch_end(self, state: TrainingState) -> bool | None:
        """After each epoch, when its parts have been measured; return True to end the phase with it."""

    def on_train_end(self, state: TrainingState) -> None:
        """After the last epoch of a phase; the module has the weights of its best epoch. Not after an error."""
