"""`regraft.fit`: from features to a model: which rows choose, what is trained, what the model remembers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.errors import DataError, Diverged, UsageError
from regraft.core.machine import fast_bfloat16
from regraft.core.options import flat, takes_options
from regraft.core.progress import log
from regraft.data import split as splitting
from regraft.data.index import PARTS
from regraft.data.split import SplitOptions
from regraft.features.options import StoreOptions
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.pictures import pictured
from regraft.training import heads
from regraft.training.history import History, Measured
from regraft.training.options import FitOptions

if TYPE_CHECKING:
    import numpy as np

    from regraft.features.extract import Features
    from regraft.inference.runner import Runner
    from regraft.model.model import Model
    from regraft.network.trunk import Tail, Trunk
    from regraft.training.checkpoint import Checkpoint
    from regraft.training.examples import Examples
    from regraft.training.history import Fitted
    from regraft.training.hooks import Hooks

_PATHS = ("weights", "continue_")
_OF_THE_MACHINE = ("store", "overwrite", "memory")  # options that decide nothing about a model
_NAMES = {"start": "the model before", "head": "the head alone", "tail": "the tail trained as well"}
LEARNED_AGAIN = "learned_again_from"  # in what a model has chosen, if it was trained on the images that chose too
HELD_OUT = "0.9/0.1"  # of the training part, where a head must know when to stop and no other part may say so


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a fit takes beside features and options.

    start:      the model to continue from, of the same trunk, head and classes.
    checkpoint: keeps the state between epochs, and has the digest of the run.
    hooks:      called between the epochs.
    command:    the options of the whole command, which the model records; None: those of training alone.
    unknown:    features of images of none of the classes, which teach what is unknown.
    """

    start: Model | None = None
    checkpoint: Checkpoint | None = None
    hooks: Hooks | None = None
    command: Any = None
    unknown: Features | None = None


@takes_options(FitOptions)
def fit(features: Features, *, hooks: Hooks | None = None, options: FitOptions) -> Model:
    """Return the Model of a head trained on the features' training part (on all rows if they have no parts).

    features: from `extract`; near-duplicates are tied before anything is held out, if `split` has not looked for them.
    hooks:    `regraft.Hooks` of one's own, called between the epochs.
    Raises DataError if there are fewer than two classes, Diverged if the loss becomes NaN or infinite.
    """
    index = tied(features.index, StoreOptions(store=features.store))
    return pictured(fit_model(features.with_index(index), options, Run(hooks=hooks)), index, options)


def fit_model(features: Features, options: FitOptions, run: Run = Run()) -> Model:
    """Return the Model of what is trained on the training part of `features`; raises as `fit` does."""
    from regraft.training.examples import together

    classes = features.index.classes
    train, choosing = fitting_parts(features, options)
    _check_classes(train, classes)
    rows, held = examples(train, classes), examples(choosing, classes) if choosing else None
    tail = features.tail and features.tail.copy()
    try:
        fitted = _train(features.runner, tail, rows, held, len(classes), options, run)
    except Diverged as error:
        error.kept = _model(features, tail, rows, choosing, error.kept, options, run)
        raise
    made = _model(features, tail, rows, choosing, fitted, options, run)
    if held is None or run.start is not None or options.refit == "off":
        return made
    return _refitted(made, features, together(rows, held), fitted.chosen, options)


def _refitted(made: Model, features: Features, rows: Examples, chosen: Mapping[str, Any], options: FitOptions) -> Model:
    """Return a model trained on training and held-out rows together for what the held-out ones have chosen.

    Its history, choices, thresholds and calibration stay those of the fit that chose; where this one diverges, all do.
    """
    log.info("What was chosen is trained again, on all %s images, those that chose it among them.", f"{len(rows):,}")
    tail, n_classes = features.tail and features.tail.copy(), len(made.classes)
    try:
        if tail is None:
            head = plugins.load(heads, options.head)
            fitted: Fitted = head.fit(rows, None, n_classes, *head.decided(chosen, options.head_settings, options))
        else:
            from regraft.training import finetune

            about = about_tail(features.trunk)
            fitted = finetune.refit(tail.module, features.shape[1:], rows, n_classes, options, chosen, **about)
    except Diverged:
        log.warning("It diverged: the model has learned from the training part alone.")
        return made
    return dataclasses.replace(
        made,
        tail=tail,
        head_weights=_head_weights(fitted, tail),
        chosen={**made.chosen, LEARNED_AGAIN: f"{len(rows):,} images, among them those that chose"},
    )


def _model(
    features: Features,
    tail: Tail | None,
    rows: Examples,
    choosing: Features | None,
    fitted: Fitted,
    options: FitOptions,
    run: Run,
) -> Model:
    from regraft.model import model, provenance
    from regraft.pipeline.calibrate import calibrated
    from regraft.training import losses

    recorded = plain(run.command or options)
    start = run.start.head_weights if run.start else None
    held = examples(choosing, features.index.classes) if choosing else None
    chosen = {**fitted.chosen, **_outcome(fitted, held or rows)}
    if choosing is not None and choosing.rows[0].part != "validation":
        chosen["judged_on"] = "a tenth of the training part"
    loss = losses.of(options, rows.labels)
    history = _of_pictures(fitted.history, rows, held)
    made = model.Model(
        trunks=features.runner.trunks,
        scales=features.runner.scales,
        roots=features.runner.roots,
        tail=tail,
        head_weights=_head_weights(fitted, tail),
        head_name=options.head,
        head_options=dataclasses.asdict(options.head_settings),
        loss=loss.plain,
        classes=features.index.classes,
        options=recorded,
        chosen=chosen,
        history=history.after(run.start.history) if run.start else history,
        images=provenance.record_images(features.index),
        run=run.checkpoint.run if run.checkpoint else provenance.run_digest(features, recorded, start),
    )
    made = calibrated(made, rows, held, options, from_scratch=run.start is None, unknown=run.unknown)
    return _with_thresholds(made, choosing) if made.loss.multilabel and choosing else made


def _of_pictures(history: History, train: Examples, held: Examples | None) -> History:
    """Return the history as that of independent images: copies and near-duplicates of a picture say no more."""
    worths = {"train": train.independent, "validation": (held or train).independent}

    def counted(row: Measured) -> Measured:
        worth = min(worths[row.part], row.images)
        error = row.loss_error * math.sqrt(row.images / worth) if worth else row.loss_error
        return dataclasses.replace(row, images=round(worth), loss_error=error)

    return History([*map(counted, history.rows)], history.watch, history.earlier)


def _head_weights(fitted: Fitted, tail: Tail | None) -> Mapping[str, np.ndarray]:
    """Return the head's weights: all, or of a tail and a head the second's."""
    if tail is None:
        return fitted.weights
    return {name.removeprefix("1."): array for name, array in fitted.weights.items() if name.startswith("1.")}


def _with_thresholds(made: Model, choosing: Features) -> Model:
    """Return a model of several labels with the threshold of each chosen on the rows that may choose."""
    from regraft.evaluation.multilabel import choose_thresholds

    thresholds = choose_thresholds(made.probabilities(choosing), choosing.labels(made.classes))
    return dataclasses.replace(made, thresholds=tuple(thresholds.tolist()))


def _outcome(fitted: Fitted, monitored: Examples) -> dict[str, str]:
    """Return in words whether the last phase helped, by the same images before and after it."""
    from regraft.evaluation.significance import mcnemar

    if len(fitted.correct) < 2:
        return {}
    before, after = list(fitted.correct)[-2:]
    paired = mcnemar(fitted.correct[before], fitted.correct[after], monitored.pictures)
    sentence = paired.text(_NAMES[after], _NAMES[before])
    return {"verdict": f"{sentence} They also chose its epoch, which favours it."}


def _train(
    runner: Runner,
    tail: Tail | None,
    train: Examples,
    choosing: Examples | None,
    n_classes: int,
    options: FitOptions,
    run: Run,
) -> Fitted:
    """Fit the head on the features, or the tail with a head on top."""
    more: dict[str, Any] = {"checkpoint": run.checkpoint, "hooks": run.hooks}
    if tail is None:
        _check_epochs(train, options, run.start)
        head: Callable[..., Fitted] = plugins.load(heads, options.head).fit
        begin = {"start": run.start.head} if run.start else {}
        return head(train, choosing, n_classes, options.head_settings, options, **more, **begin)
    from regraft.training import finetune

    return finetune.fit(
        tail.module,
        runner.output_shape,
        train,
        choosing,
        n_classes,
        options,
        start=run.start.trained_module if run.start else None,
        **more,
        **about_tail(runner.trunk),
    )


def about_tail(trunk: Trunk) -> dict[str, Any]:
    """Return what the training of a tail must know of its trunk."""
    fine = trunk.choice.precision == "float32"
    return {"pretrained": bool(trunk.recipe.weights["pretrained"]), "bfloat16": fast_bfloat16() and not fine}


def _check_epochs(train: Examples, options: FitOptions, start: Model | None) -> None:
    """Refuse what only a head that is trained in epochs can do."""
    if needs_held_out(options):
        return
    if train.fresh:
        raise UsageError(
            f"--augment is fresh, and the {options.head} head is not trained in epochs. "
            "Use --augment stored, or a head that is, such as --head mlp."
        )
    if start:
        raise UsageError(
            f"--continue names a model with the {options.head} head alone, which is solved, not trained in epochs: it "
            "can't be trained further. To train the network below it, use --cut and --tail instead of --continue."
        )


def fitting_parts(features: Features, options: FitOptions) -> tuple[Features, Features | None]:
    """Return what is trained on, and what may choose: never the only part that is left to report on."""
    if all(row.part is None for row in features.rows):
        train, validation, test = features, None, None
    else:
        train, validation, test = (features.part(name) for name in PARTS)
    if test and validation:
        return train, validation
    if features.tail is None and not needs_held_out(options):
        return train, None
    log.info("A tenth of the training part is held out to say when to stop.")
    index = train.index.with_rows(dataclasses.replace(row, part=None) for row in train.rows)
    held = train.with_index(splitting.split(index, options=SplitOptions(split=HELD_OUT, seed=options.seed)))
    return held.part("train"), held.part("test")


def needs_held_out(options: FitOptions) -> bool:
    """Whether the head is trained in epochs, of which held-out rows say the last."""
    return bool(plugins.load(heads, options.head).NEEDS_HELD_OUT)


def _check_classes(train: Features, classes: Sequence[str]) -> None:
    if len(classes) < 2 and not (classes and train.index.multilabel):
        raise DataError(f"There is one class only ({', '.join(classes)}); a classifier needs two or more.")
    present = set(train.index.used.classes)
    for name in classes:
        if name not in present:
            raise DataError(f"The class {name!r} has no image in the training part; add some, or leave the class out.")


def examples(features: Features, classes: Sequence[str]) -> Examples:
    """Return features with the labels, groups and views that training needs."""
    import numpy as np

    from regraft.training.examples import Examples

    groups = features.groups()
    return Examples(
        features,
        features.labels(classes),
        groups,
        views=features.views,
        fresh=features.fresh,
        pictures=np.array(features.index.used.picture_codes()),
        keys=features.keys(groups),
    )


def plain(options: Any) -> dict[str, Any]:
    """Return the options that decide a model, JSON-able, without this machine's folders."""
    values = {name: value for name, value in flat(options).items() if name not in _OF_THE_MACHINE}
    return {name: Path(value).name if name in _PATHS and value else value for name, value in values.items()}
