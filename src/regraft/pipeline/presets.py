"""Presets: recipes of ordinary options, for whoever does not choose a network.

Options and a source enter, and leave with the recipe's options in the place of defaults. Whoever names a backbone, a
cut or weights has chosen the network, and a folder of features has one: then no recipe holds. Each recipe was chosen by
the log loss of linear heads in 5-fold cross-validation of training parts (`benchmarks/presets.py`), "balanced" as what
two cores do for 3,000 photographs within about a minute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError
from regraft.core.options import change, fields, flag, flat
from regraft.core.progress import log
from regraft.data import split as splitting
from regraft.pipeline import feature_folder
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.read import read_source

if TYPE_CHECKING:
    from regraft.data.index import Index

RECIPES: dict[str, dict[str, Any]] = {
    "fast": {"backbone": "efficientnet_lite0"},
    "balanced": {"backbone": "efficientnet_lite0+efficientnet_lite2@320"},
}
BEST = (  # the backbones of which the preset "best" takes one
    "efficientnet_lite0",
    "efficientnet_lite2",
    "efficientnet_lite0@288",
    "efficientnet_lite2@320",
    "efficientnet_lite0+efficientnet_lite2",
    "efficientnet_lite0+efficientnet_lite2@320",
    "efficientnet_lite0@288+efficientnet_lite2@320",
    "efficientnet_lite0+efficientnet_lite0@288+efficientnet_lite2+efficientnet_lite2@320",
)
OF_NETWORK = ("backbone", "weights", "size", "cut", "pool", "tail", "end")  # options by which a network is chosen
HELD_OUT = "0.8/0.2"  # of a source without parts where cross-validation would be the rule: it would measure its choice
MANY = 20_000  # images from which "fast" is mentioned


def text(preset: str) -> str:
    """Return a recipe as a command that can be read, copied and changed."""
    if preset in RECIPES:
        words = [f"{flag(name)} {value}" for name, value in RECIPES[preset].items()]
        return " ".join(["regraft train SOURCE -o MODEL", *words])
    listed = "\n".join(f"  regraft train SOURCE -o MODEL --backbone {name}" for name in BEST)
    return f"The one with the lowest log loss in 5-fold cross-validation of the training part:\n\n{listed}"


def resolved(source: Any, options: TrainOptions) -> tuple[Any, TrainOptions]:
    """Return the source and the options with the preset's recipe; raise what reading the source does for "best"."""
    defaults, values, preset = fields(TrainOptions), flat(options), options.preset.preset
    if any(values[name] != defaults[name].default for name in OF_NETWORK) or feature_folder.find(source):
        return source, options
    if preset in RECIPES:
        return source, change(options, **RECIPES[preset])
    index = tied(read_source(source, options.source, options.broken), options.features.store, options.split)
    index, options = _with_parts(index, options)
    return index, change(options, backbone=_best(index.train or index, options))


def mention_fast(index: Index, options: TrainOptions) -> None:
    """Say how many images are computed in less time, where they are many."""
    if len(index.used) >= MANY and options.preset.preset != "fast" and len(options.features.network.networks) > 1:
        log.info("There are %s images; --preset fast takes about a third of the time.", f"{len(index.used):,}")


def _with_parts(index: Index, options: TrainOptions) -> tuple[Index, TrainOptions]:
    """Return the index with its parts: what chooses is not what measures."""
    if splitting.folds(index, options.split):
        log.info("A class has few images: a fifth of all is held out, to measure the model that the preset leads to.")
        options = change(options, split=HELD_OUT)
    return splitting.split(index, options=options.split), options


def _best(index: Index, options: TrainOptions) -> str:
    """Return the backbones of BEST with the lowest log loss; those of "balanced" where that can't be told."""
    from regraft.evaluation.metrics import log_loss
    from regraft.pipeline.compare import labelled
    from regraft.pipeline.extract import compute
    from regraft.training import cross_validation

    losses = {}
    try:
        for backbone in BEST:
            examples = labelled(compute(index, change(options.features, backbone=backbone)))
            (probabilities,) = cross_validation.cross_validate(examples, len(index.classes), seed=options.fit.seed)
            losses[backbone] = log_loss(probabilities, examples.labels)
            log.info("%s: log loss %.4f in cross-validation of the training part", backbone, losses[backbone])
    except DataError as error:
        log.info("%s The preset is balanced instead.", error)
        return str(RECIPES["balanced"]["backbone"])
    return min(losses, key=lambda name: losses[name])
