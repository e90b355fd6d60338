"""Options of training, and how a plug-in's own options are read.

Values as a caller or a command line gives them enter; checked options leave.
Nothing heavy is imported here: `regraft --help` reads this module.
"""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from regraft.core import plugins
from regraft.core.errors import UnknownName
from regraft.core.options import Options, option, require, require_choice
from regraft.core.rng import seed_option
from regraft.training import heads, optimizers, schedules

T = TypeVar("T")

# options with which nothing but the number of epochs ends a phase
EPOCHS_ALONE: dict[str, Any] = {"patience": None, "target_accuracy": None, "minutes": None}
_WORDS = {"none": None, "true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class FitOptions(Options):
    """Options of training; the optimizer's and the epochs' hold for whatever goes through the loop."""

    GROUP = "Head and loss"

    head: str = option("linear", f"what is trained on the features: {', '.join(plugins.names(heads))}", "Main options")
    head_options: dict[str, Any] | None = option(None, "the head's own, such as --head-options.hidden 256 for mlp")
    loss: Literal["auto", "softmax", "sigmoid"] = option(
        "auto",
        "softmax: cross-entropy over the classes; sigmoid: binary cross-entropy, one output for two classes, or one "
        "for each label where an image may have several; auto: softmax, or sigmoid for several labels",
    )
    label_smoothing: float = option(0.0, "share of each label that is spread evenly over all classes, 0 to below 1")
    balance: Literal["none", "weights", "oversample"] = option(
        "none",
        "classes of unequal size: weights: a class counts the more the rarer it is; oversample: an epoch draws every "
        "class equally often",
    )
    optimizer: str = option("adam", f"{', '.join(optimizers.NAMES)}; the linear head alone needs none", "Optimizer")
    optimizer_options: dict[str, Any] | None = option(
        None, "any other parameter of PyTorch's optimizer, such as --optimizer-options.weight_decay 0.01", "Optimizer"
    )
    learning_rate: float = option(1e-3, "learning rate, per step; with onecycle its peak", "Optimizer")
    schedule: str = option(
        "auto",
        "how the rate changes: constant, step, exponential, cosine, onecycle or plateau; auto: constant for a head, "
        "onecycle for a tail",
        "Optimizer",
    )
    schedule_options: dict[str, Any] | None = option(
        None, "the schedule's own, such as --schedule-options.floor 1e-5 for cosine", "Optimizer"
    )
    warm_up: int = option(0, "steps in which the rate first rises from next to nothing", "Optimizer")
    batch_size: int | Literal["all"] = option(32, "images per batch; all: the whole training part", "Optimizer")
    epochs: int = option(100, "maximum number of epochs: passes over the training part", "Stopping")
    watch: Literal["loss", "accuracy"] = option(
        "loss", "measure of the validation part that decides which epoch is best, and when to stop", "Stopping"
    )
    patience: int | None = option(
        10, "stop after so many epochs without a better watched measure; none: never stop early", "Stopping"
    )
    minimum_gain: float = option(
        0.0, "by more than this the watched measure must be better to count for patience", "Stopping"
    )
    target_accuracy: float | None = option(
        None,
        "stop when the validation accuracy reaches this, such as 0.98; with --watch accuracy that epoch is kept",
        "Stopping",
    )
    minutes: float | None = option(
        None, "stop after so many minutes of training, when the current epoch is done", "Stopping"
    )
    phases: Literal["head,tail", "head", "tail"] = option(
        "head,tail", "above a cut: train the head, then the tail with that head; or only one of them", "Fine-tuning"
    )
    untrained_head: bool = option(
        False, "let --phases tail start without a trained head, which spoils the tail", "Fine-tuning"
    )
    tail_learning_rate: float = option(
        3e-4, "learning rate of the tail's phase, per step; with onecycle its peak", "Fine-tuning"
    )
    tail_epochs: int = option(10, "maximum number of epochs of the tail's phase", "Fine-tuning")
    layer_decay: float = option(
        1.0, "each stage of the tail learns at this times the rate of the one above it", "Fine-tuning"
    )
    unfreeze_every: int | None = option(
        None,
        "epochs after which one more stage of the tail is trained, from the top; none: all from the start",
        "Fine-tuning",
    )
    batchnorm: Literal["keep", "train"] = option(
        "keep", "BatchNorm's statistics above the cut: keep the pretrained ones, or train them too", "Fine-tuning"
    )
    refit: Literal["on", "off"] = option(
        "on", "when held-out images have chosen what they choose, learn again from them too; off: leave them out"
    )
    memory: float = option(
        4.0,
        "gigabytes of features that the linear head keeps; where they are more, it reads the rest again in each pass",
        "Many machines",
    )
    pictures: Literal["on", "off"] = option(
        "on", "keep small pictures of up to 500 training images in the model, to explain by; off: their paths alone"
    )
    seed: int = seed_option()

    def check(self) -> None:
        """Raise UsageError or UnknownName for a value out of range, or an option that a plug-in does not have."""
        require_choice("head", self.head, plugins.names(heads))
        require_choice("optimizer", self.optimizer, optimizers.NAMES)
        require_choice("schedule", self.schedule, ("auto", *plugins.names(schedules)))
        smoothing, size = self.label_smoothing, self.batch_size
        require(0 <= smoothing < 1, "label_smoothing", smoothing, "a share from 0 to below 1")
        require(size == "all" or size >= 1, "batch_size", size, "1 or more, or all")
        require(self.warm_up >= 0, "warm_up", self.warm_up, "0 or more steps")
        require(0 <= self.memory < math.inf, "memory", self.memory, "0 or more, in GB")
        _require_rate("learning_rate", self.learning_rate)
        self._check_stopping()
        self._check_tail()
        _ = self.head_settings, self.schedule_settings  # checked with the rest, not when they are first used
        if self.optimizer_options:
            optimizers.check(self.optimizer, self.optimizer_settings)

    def _check_stopping(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        require(self.patience is None or self.patience >= 1, "patience", self.patience, "1 or more, or none")
        require(0 <= self.minimum_gain < math.inf, "minimum_gain", self.minimum_gain, "0 or a number above it")
        target, minutes = self.target_accuracy, self.minutes
        require(target is None or 0 < target <= 1, "target_accuracy", target, "a share above 0, at most 1, or none")
        require(minutes is None or minutes > 0, "minutes", minutes, "a number above 0, or none")

    def _check_tail(self) -> None:
        every = self.unfreeze_every
        _require_rate("tail_learning_rate", self.tail_learning_rate)
        require(self.tail_epochs >= 1, "tail_epochs", self.tail_epochs, "1 or more")
        require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "a number above 0, at most 1")
        require(every is None or every >= 1, "unfreeze_every", every, "1 or more epochs, or none")

    def rows_a_step(self, rows: int) -> int:
        """Return how many of so many training rows go into one step."""
        return max(1, rows) if self.batch_size == "all" else self.batch_size

    @property
    def head_settings(self) -> Any:
        """The head's own checked Options, made from `head_options`."""
        return read_options(plugins.load(heads, self.head).Options, self.head_options or {}, f"option of {self.head}")

    @property
    def optimizer_settings(self) -> dict[str, Any]:
        """The optimizer's parameters, made from `optimizer_options`."""
        return {name: _literal(value) for name, value in (self.optimizer_options or {}).items()}

    @property
    def schedule_settings(self) -> Any:
        """The schedule's own checked Options, made from `schedule_options`."""
        options = self.schedule_options or {}
        named = not options or self.schedule != "auto"
        require(named, "schedule", "auto", "a schedule's name, because --schedule-options are given")
        plugin = plugins.load(schedules, schedules.AUTO if self.schedule == "auto" else self.schedule)
        return read_options(plugin.Options, options, f"option of {self.schedule}")


def _require_rate(name: str, rate: float) -> None:
    require(0 < rate <= 1e6, name, rate, "a number above 0, at most 1e6")


def read_options(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """Make the options dataclass `kind` from `values`; strings of a command line and lists of JSON are converted.

    Raises UnknownName for a name that is no field of `kind`; `kind` itself refuses unfit values.
    """
    types = {field.name: field.type for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in types:
            raise UnknownName.of(what, name, types)
    return kind(**{name: value if types[name] == "str" else _literal(value) for name, value in values.items()})


def _literal(value: Any) -> Any:
    """Return what a string spells ("256,128" → (256, 128)), or the string where it spells nothing."""
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, str):
        return value
    if value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return value
