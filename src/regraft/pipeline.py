"""The steps in their order: read → split → trunk → extract → fit → evaluate → keep.

The only file that knows the order. The command line and the estimator are two
faces of it; the public functions of `regraft` are here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.errors import DataError, Diverged, RefusedFile, UsageError
from regraft.core.machine import fast_bfloat16
from regraft.core.options import make, merged, takes_options
from regraft.core.progress import log
from regraft.data import read as reading
from regraft.data import split as splitting
from regraft.data.index import PARTS, Index
from regraft.data.read import ReadOptions
from regraft.data.split import SplitOptions
from regraft.features.options import EngineOptions, FeatureOptions, ViewOptions
from regraft.graft import heads
from regraft.graft.options import FitOptions
from regraft.serve.options import EvaluateOptions, PredictOptions

if TYPE_CHECKING:
    import numpy as np

    from regraft.data.inspect import Inspection
    from regraft.features.extract import Features
    from regraft.features.trunk import Trunk
    from regraft.graft.examples import Examples
    from regraft.graft.history import Fitted
    from regraft.serve.evaluate import Report
    from regraft.serve.model import Model
    from regraft.serve.predict import Prediction


HELD_OUT = "0.9/0.1"  # of the training part, where a head must know when to stop and no other part may say so


@merged
@dataclass(frozen=True, kw_only=True)
class ExtractOptions(FeatureOptions, ReadOptions):
    """The choices of `regraft extract`."""


@merged
@dataclass(frozen=True, kw_only=True)
class LearnOptions(ViewOptions, FeatureOptions):
    """The choices of `regraft.extract`, whose features may be trained on."""


@merged
@dataclass(frozen=True, kw_only=True)
class TrainOptions(FitOptions, ViewOptions, FeatureOptions, SplitOptions, ReadOptions):
    """All choices of a training run: those of each step, each default written at its step."""


@takes_options(ReadOptions)
def read(source: Any, labels: Sequence[Any] | None = None, **options: Any) -> Index:
    """Return the Index of a source; the pixels are looked at later, by `inspect` or `extract`.

    source: a folder of class folders (or of parts holding class folders), a .zip or .tar[.gz] of one, a CSV,
            a pandas DataFrame, or a list of paths.
    labels: one per path, if `source` is a list.
    Raises DataError if nothing in it can be used.
    """
    return reading.read(source, labels, options=make(ReadOptions, options))


@takes_options(SplitOptions)
def split(index: Index, *, keep: Mapping[str, str] | None = None, **options: Any) -> Index:
    """Return the index with a part for every used row; `.train`, `.validation` and `.test` give the parts.

    keep: id → part of an earlier split; images that are in it stay where they were.
    Raises DataError if a class is too small.
    """
    return splitting.split(index, options=make(SplitOptions, options), keep=keep)


@takes_options(LearnOptions)
def extract(index: Index, **options: Any) -> Features:
    """Return the features of the used rows, computing only those that the store does not have.

    The training part's (without parts: all) have stored views beside them, as many as `views` says; `fit` trains on
    them too.
    Raises WeightsMissing, RefusedFile, StoreError.
    """
    given = make(LearnOptions, options)
    return _extract(index, given, given)


@takes_options(FitOptions)
def fit(features: Features, **options: Any) -> Model:
    """Return the Model of a head trained on the features' training part (on all rows if they have no parts).

    Raises DataError if there are fewer than two classes, Diverged if the loss is no number.
    """
    return _fit(features, make(FitOptions, options))


@takes_options(EvaluateOptions)
def evaluate(model: Model, data: Any, **options: Any) -> Report:
    """Return the Report of a model on labelled images.

    data: an Index, or a source as for `read`.
    part: "train", "validation", "test" or "all"; None: "test" if there is such a part, else "validation",
          else all. Images that the model knows keep the part that they had when it was trained.
    Raises DataError if no image is in that part, too many are broken, or a label is none of the model's.
    """
    return _evaluate(model, data, make(EvaluateOptions, options))


def inspect(data: Any) -> Inspection:
    """Return what is in an Index or a source: every image is decoded, broken ones are marked, never an error."""
    from regraft.data import inspect as inspection

    return inspection.inspect(data if isinstance(data, Index) else read(data))


@takes_options(PredictOptions)
def predict(model: Model, inputs: Any, **options: Any) -> list[Prediction]:
    """Return one Prediction per file of `inputs`, in order: a path, or a list of files, folders and archives."""
    from regraft.serve import predict as serving

    inputs = [inputs] if isinstance(inputs, str | Path) else inputs
    return serving.predict(model, reading.read_inputs(inputs), make(PredictOptions, options))


@takes_options(EngineOptions)
def load(folder: str | Path, **options: Any) -> Model:
    """Open a model folder; raise RefusedFile if it is edited, cut short, foreign or from a later format."""
    from regraft.features import engine
    from regraft.serve import model

    return model.load(folder, engine.choose(make(EngineOptions, options)))


def read_parts(source: Any, labels: Sequence[Any] | None, options: TrainOptions) -> Index:
    """Read a source and split it."""
    return splitting.split(reading.read(source, labels, options=options), options=options)


def learn(index: Index, options: TrainOptions) -> tuple[Model, Features]:
    """Extract the features of an index and fit a head on its training part."""
    features = _checked(_extract(index, options, options), options)
    return _fit(features, options), features


def read_and_extract(source: Any, options: ExtractOptions) -> Features:
    """Read a source and extract the features of all its images."""
    return _checked(_extract(reading.read(source, options=options), options), options)


def train(source: Any, output: str | Path, options: TrainOptions) -> Report:
    """Read, split, extract, fit, evaluate, and save the model into the folder `output`.

    A run that was killed goes on where it was when the same command is given again; one that was finished is not
    computed again, and its model stays.
    """
    from regraft.serve.model import check_target

    output = Path(output).absolute()
    check_target(output)
    index = read_parts(source, None, options)
    if not (index.test or index.validation):
        raise DataError(
            f"{index.name} has a training part only, so nothing could be measured. Add a test or a validation part, "
            "or take the class folders out of the part folder: then they are split."
        )
    features = _checked(_extract(index, options, options), options)
    earlier = _earlier(features, options, output)
    model = earlier or _fit_or_keep(features, options, output)
    report = _report(model, features, options)
    if earlier:
        log.info("%s has the model of this very run already; it is kept.", output)
        return report
    model = dataclasses.replace(report.model, measures={report.part: report.measures()})
    model.save(output)
    _checkpoint(output).unlink(missing_ok=True)
    return dataclasses.replace(report, model=model)


def _earlier(features: Features, options: TrainOptions, output: Path) -> Model | None:
    """Return the model in `output` if it comes of the same images, parts, options, weights and versions."""
    from regraft.serve import model

    try:
        found = model.load(output, features.trunk.choice)
    except RefusedFile:
        return None
    same = found.run == model.run_digest(features, _plain(options))
    return found if found.measures and same else None


def _report(model: Model, features: Features, options: TrainOptions) -> Report:
    """Measure a model as it will predict: after training on int8 features in the best precision; say what int8 cost."""
    from regraft.features import engine

    choices = EvaluateOptions(store=options.store, max_broken=1)
    if features.trunk.choice.precision != "int8":
        return _evaluate(model, features.index, choices)
    coarse = _evaluate(model, features.index, choices)
    choice = engine.choose(EngineOptions(engine=options.engine))
    fine = _evaluate(dataclasses.replace(model, trunk=model.trunk.on(choice)), features.index, choices)
    note = (
        f"The head was trained on int8 features, and the model predicts in {choice.precision}, as measured here; "
        f"in int8 the accuracy on the same {len(coarse.index):,} images is {100 * coarse.accuracy:.1f} %."
    )
    return dataclasses.replace(fine, notes=(*fine.notes, note))


def _checkpoint(output: Path) -> Path:
    return output.with_name(f".{output.name}.checkpoint")


def _fit_or_keep(features: Features, options: TrainOptions, output: Path) -> Model:
    """Fit; where that diverges, save the last good weights as the model, unless an earlier one is there."""
    try:
        return _fit(features, options, _checkpoint(output))
    except Diverged as error:
        _checkpoint(output).unlink(missing_ok=True)
        if (output / "model.json").exists():
            raise Diverged(f"{error} {output} still has the earlier model.") from error
        error.kept.save(output)
        raise Diverged(f"{error} The kept weights are in {output}.") from error


def probabilities(model: Model, index: Index, *, store: Path | None = None) -> np.ndarray:
    """Return (n, n_classes) probabilities of the used rows of an index; raise DataError if one is broken."""
    from regraft.features.extract import extract
    from regraft.features.store import Store

    features = extract(index, model.trunk, Store(store))
    if broken := features.index.broken:
        listed = "; ".join(f"{row.path}: {row.reason}" for row in broken.rows[: reading.SHOWN_FILES])
        raise DataError(f"{len(broken)} of {len(index)} images can't be read: {listed}")
    return model.probabilities(features)


def _extract(index: Index, options: FeatureOptions, viewing: ViewOptions | None = None) -> Features:
    """Return the features that `options` ask for; `viewing` says what views of the training images, if any."""
    from regraft.features import extract, trunk, views
    from regraft.features.store import Store

    built = trunk.build(options, tail=options.trains_tail)
    counts = (index.train if index.train else index).class_counts
    wanted = views.wanted(viewing.number, viewing.augmentation, options.seed, list(counts.values())) if viewing else []
    stored = [] if viewing and viewing.augment == "fresh" else wanted
    features = extract.extract(index, built, Store(options.store), stored, limit=options.store_limit)
    _say_left_out(features.index)
    anew = wanted and (not stored or not features.stored)
    return features.with_fresh(wanted[0]) if anew else features


def _say_left_out(index: Index) -> None:
    """Name what is not used: broken files one by one, the others by their count."""
    broken = index.broken
    for row in broken.rows[: reading.SHOWN_FILES]:
        log.warning("Left out, broken: %s: %s", row.path, row.reason)
    if len(broken) > reading.SHOWN_FILES:
        log.warning("and %d more broken files; `regraft inspect --json` lists all.", len(broken) - reading.SHOWN_FILES)
    if index.ignored:
        first = index.ignored.rows[0]
        log.info("Ignored %d files, such as %s: %s", len(index.ignored), first.path, first.reason)


def _checked(features: Features, options: ReadOptions) -> Features:
    reading.check_broken(features.index, options.max_broken)
    return features


def _evaluate(model: Model, data: Any, options: EvaluateOptions) -> Report:
    from regraft.features.extract import extract
    from regraft.features.store import Store
    from regraft.serve import evaluate as serving

    index = data if isinstance(data, Index) else reading.read(data, options=options)
    part, chosen, notes = serving.choose_part(model, index, options.part)
    features = extract(chosen, model.trunk, Store(options.store))
    found = index.mark_broken({row.id: row.reason for row in features.index.broken})
    reading.check_broken(found, options.max_broken)
    if not features.rows:
        raise DataError(f"No image of the part {part!r} of {index.name} can be read.")
    return serving.measure(model, features, part=part, notes=notes, source=found)


def _fit(features: Features, options: FitOptions, checkpoint: Path | None = None) -> Model:
    classes = features.index.classes
    train, choosing = _fitting_parts(features, options)
    _check_classes(train, classes)
    held = _examples(choosing, classes) if choosing else None
    trunk = features.trunk.with_own_tail()
    try:
        fitted = _train(trunk, _examples(train, classes), held, len(classes), options, checkpoint)
    except Diverged as error:
        error.kept = _model(features, trunk, choosing, error.kept, options)
        raise
    return _model(features, trunk, choosing, fitted, options)


def _model(features: Features, trunk: Trunk, choosing: Features | None, fitted: Fitted, options: FitOptions) -> Model:
    from regraft.serve import model

    held_out = choosing is not None and choosing.rows[0].part != "validation"
    return model.Model(
        trunk=trunk,
        head=fitted.module if trunk.tail is None else fitted.module.get_submodule("1"),
        head_name=options.head,
        head_options=dataclasses.asdict(options.head_settings),
        classes=features.index.classes,
        options=_plain(options),
        chosen={**fitted.chosen, "judged_on": "a tenth of the training part"} if held_out else fitted.chosen,
        history=fitted.history,
        images=model.record_images(features.index),
        run=model.run_digest(features, _plain(options)),
    )


def _train(
    trunk: Trunk,
    train: Examples,
    choosing: Examples | None,
    n_classes: int,
    options: FitOptions,
    checkpoint: Path | None,
) -> Fitted:
    """Fit the head on the features, or the trunk's tail with a head on top."""
    from regraft.graft import tail

    if trunk.tail is None:
        if train.fresh and not plugins.load(heads, options.head).NEEDS_HELD_OUT:
            raise UsageError(
                f"--augment is fresh, and the {options.head} head is not trained in epochs. "
                "Use --augment stored, or a head that is, such as --head mlp."
            )
        head: Callable[..., Fitted] = plugins.load(heads, options.head).fit
        return head(train, choosing, n_classes, options.head_settings, options, checkpoint=checkpoint)
    return tail.fit(
        trunk.tail,
        trunk.output_shape,
        train,
        choosing,
        n_classes,
        options,
        pretrained=bool(trunk.recipe.weights["pretrained"]),
        bfloat16=fast_bfloat16() and trunk.choice.precision != "float32",
        checkpoint=checkpoint,
    )


def _fitting_parts(features: Features, options: FitOptions) -> tuple[Features, Features | None]:
    """Return what is trained on, and what may choose: never the only part that is left to report on."""
    if all(row.part is None for row in features.rows):
        train, validation, test = features, None, None
    else:
        train, validation, test = (features.part(name) for name in PARTS)
    if test and validation:
        return train, validation
    if features.trunk.tail is None and not plugins.load(heads, options.head).NEEDS_HELD_OUT:
        return train, None
    log.info("A tenth of the training part is held out to say when to stop.")
    index = train.index.with_rows(dataclasses.replace(row, part=None) for row in train.rows)
    held = train.with_index(splitting.split(index, options=SplitOptions(split=HELD_OUT, seed=options.seed)))
    return held.part("train"), held.part("test")


def _check_classes(train: Features, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise DataError(f"There is one class only ({', '.join(classes)}); a classifier needs two or more.")
    present = {row.label for row in train.rows}
    for name in classes:
        if name not in present:
            raise DataError(f"The class {name!r} has no image in the training part; add some, or leave the class out.")


def _examples(features: Features, classes: Sequence[str]) -> Examples:
    from regraft.graft.examples import Examples

    return Examples(features, features.labels(classes), features.groups(), views=features.views, fresh=features.fresh)


def _plain(options: Any) -> dict[str, Any]:
    """Return the options that decide a model, JSON-able, without this machine's folders."""
    values = {name: value for name, value in dataclasses.asdict(options).items() if name != "store"}
    return {name: Path(value).name if name == "weights" else value for name, value in values.items()}
