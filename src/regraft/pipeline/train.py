"""`regraft.train`: read → split → extract → fit → evaluate → save, and going on where a killed run was."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from regraft.core.errors import Diverged, RefusedFile, UsageError
from regraft.core.options import change, require, takes_options
from regraft.core.progress import log
from regraft.core.text import percent
from regraft.data import split as splitting
from regraft.inference.options import EngineOptions
from regraft.pipeline import continue_training, feature_folder, presets, unknown_class
from regraft.pipeline.extract import build_network, check_broken, compute
from regraft.pipeline.fit import Run, fit_model, needs_held_out, plain
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.own_module import takes_module
from regraft.pipeline.pictures import pictured
from regraft.pipeline.read import check_classes, divided, read_source
from regraft.training import processes

if TYPE_CHECKING:
    from regraft.features.extract import Features
    from regraft.features.unit_shelf import UnitShelf
    from regraft.model.model import Model
    from regraft.pipeline.report import Report
    from regraft.training.hooks import Hooks

SHOWN_RECALLS = 12  # classes


@takes_module
@takes_options(TrainOptions)
def train(source: Any, output: str | Path, *, hooks: Hooks | None = None, options: TrainOptions) -> Report:
    """Read, split, extract, fit, evaluate, and save the model into a folder, as `regraft train` does.

    A run that was killed goes on where it was when it is called again; one that was finished is not computed again,
    and its model stays. Processes that torchrun started train together; each calls this with the same arguments, and
    the first writes.

    source:     as for `read`, or an Index.
    output:     folder for the model; it must be new or empty, or `overwrite` given where it holds another run's model.
    hooks:      `regraft.Hooks` of one's own, called between the epochs.
    preprocess: as for `extract`, where `backbone` is a torch module.
    Raises UsageError or UnknownName for options that do not fit, before any image is read; DataError, WeightsMissing,
    RefusedFile, StoreError; Diverged, whose last good weights are then in `output`.
    """
    from regraft.model.folder import check_target
    from regraft.model.provenance import run_digest
    from regraft.pipeline import report as reports
    from regraft.training.checkpoint import Checkpoint

    together, output = processes.join(), Path(output).absolute()
    check_target(output)
    start = continue_training.start_model(options)
    if start:
        options = continue_training.taken_over(options, start)
    else:
        source, options = presets.resolved(source, options)
    features = together.first_alone(lambda: features_of(source, options, start))
    unknown = _unknown(features, options)
    decides = {**plain(options), **({"unknown_images": sorted(row.id for row in unknown.rows)} if unknown else {})}
    checkpoint = Checkpoint(_checkpoint(output), run_digest(features, decides, start.head_weights if start else None))
    earlier = _earlier(features, output, checkpoint.run)
    _check_overwrite(earlier, output, options)
    run = Run(start=start, checkpoint=checkpoint, hooks=hooks, command=options, unknown=unknown)
    model = earlier or _fit_or_keep(features, options, output, run)
    int8 = _is_int8(features)  # in which it was not measured
    known = reports.kept(earlier, features.index) if earlier and not int8 else None
    report = known or _report(model, features, options)
    report = reports.with_shortcuts(report, options.features.store.store)
    report = unknown_class.with_measured(report, features, options.features.store.store) if unknown else report
    if earlier:
        log.info("%s has the model of this very run already; it is kept.", output)
        return report
    model = reports.keep(report)
    if together.rank == 0:
        model.save(output, reports.card(model), overwrite=options.output.overwrite)
        checkpoint.path.unlink(missing_ok=True)
    return dataclasses.replace(report, model=model)


def fit_paths(paths: Sequence[Any], labels: Sequence[Any], options: TrainOptions) -> Model:
    """Return the Model of images by their paths and labels, all of which are trained on."""
    aside = options.unknown.unknown_class
    require(aside is None, "unknown_class", aside, "none where images come with labels: each of these is a class")
    index = read_source(paths, options.source, options.broken, labels=labels)
    _, options = presets.resolved(index, options)
    index = tied(index, options.features.store, options.split)
    features = compute(index, options.features, options.augmentation, broken=options.broken)
    model = fit_model(check_broken(features, options.broken), options.fit, Run(command=options))
    return pictured(model, features.index, options.fit)


def fit_and_evaluate(source: Any, options: TrainOptions) -> Report:
    """Read a source, hold a part out (or none, where cross-validation is the rule), fit, and evaluate."""
    from regraft.pipeline import report as reports

    source, options = presets.resolved(source, options)
    features = features_of(source, options)
    store, unknown = options.features.store.store, _unknown(features, options)
    report = _report(fit_model(features, options.fit, Run(command=options, unknown=unknown)), features, options)
    report = reports.with_shortcuts(report, store)
    return unknown_class.with_measured(report, features, store) if unknown else report


def _unknown(features: Features, options: TrainOptions) -> Features | None:
    """Return the features of the images that teach what is unknown, if a class of such images is named."""
    if options.unknown.unknown_class is None:
        return None
    index = unknown_class.taught(features.index, options.fit.seed)
    return unknown_class.features_of(index, features.runner, options.features.store.store)


def features_of(source: Any, options: TrainOptions, start: Model | None = None) -> Features:
    """Return the features of a source, split into parts, or whole where cross-validation is the rule.

    The network is built first: what is wrong with the words is said before any image is read.
    start: the model to continue from, whose network and parts are taken over.
    """
    from regraft.features.extract import Features

    _check_phases(options, start)
    folder = None if start else feature_folder.find(source)
    in_place: list[UnitShelf] = []
    aside = options.unknown.unknown_class
    require(not (folder and aside), "unknown_class", aside, "none with a folder of features as source")
    if folder:
        memory = math.inf if needs_held_out(options.fit) else options.fit.memory  # in epochs, rows are read at random
        network, index, in_place = feature_folder.read(folder, options.features.store.store, options.source, memory)
    else:
        network = start.network if start else build_network(options.features)
        index = read_source(source, options.source, options.broken)
    presets.mention_fast(index, options)
    check_classes(unknown_class.set_aside(index, aside))
    index = tied(index, options.features.store, options.split)
    index = unknown_class.set_aside(index, aside)
    index = divided(index, options.split, continue_training.parts(index, start) if start else None)
    if in_place:
        in_units = Features(index, network.runner, in_place)
        return check_broken(in_units if network.runner.scales else in_units.scaled(), options.broken)
    augmentation = None if folder else options.augmentation
    features = check_broken(compute(index, options.features, augmentation, network, options.broken), options.broken)
    divided(features.index, options.split)  # what decoding took away may have been a class
    return features


def _check_phases(options: TrainOptions, start: Model | None) -> None:
    """Refuse an untrained head on a pretrained tail before anything is computed."""
    if options.features.trains_tail:
        from regraft.training.finetune import plan

        random = options.features.network.weights == "random"
        phases = plan(options.fit, pretrained=not random, trained=start is not None)
        if random and start is None and phases == ("tail",):
            log.info("The weights are random: tail and head are trained together, with no phase of the head alone.")


def _earlier(features: Features, output: Path, run: str) -> Model | None:
    """Return the model in `output` if it comes of the same images, parts, options, weights and versions."""
    from regraft.model import model

    try:
        trunk = features.runner.trunks[0]
        earlier = model.load(output, trunk.choice, trunk.recipe.own)
    except RefusedFile:
        return None
    return earlier if earlier.measures and earlier.run == run else None


def _report(model: Model, features: Features, options: TrainOptions) -> Report:
    """Evaluate a model; where classes were balanced for a head alone, say what that did to each class."""
    report = _evaluated(model, features, options)
    if options.fit.balance == "none" or features.tail is not None:
        return report
    unbalanced = change(options, balance="none")
    other = _evaluated(fit_model(features, unbalanced.fit, Run(command=unbalanced)), features, unbalanced)
    note = f"recall with --balance {options.fit.balance} (without): {_recalls(report, other)}"
    return dataclasses.replace(report, notes=(*report.notes, note))


def _recalls(report: Report, other: Report) -> str:
    """Return both recalls of each class in per cent; of many classes those that changed the most."""
    from regraft.evaluation.multiclass import Evaluation

    balanced, without = (cast(Evaluation, each.evaluation).per_class for each in (report, other))
    pairs = {name: (scores["recall"], without[name]["recall"]) for name, scores in balanced.items()}
    shown = sorted(pairs, key=lambda name: -abs(pairs[name][0] - pairs[name][1]))[:SHOWN_RECALLS]
    return ", ".join(f"{name} {percent(pairs[name][0])} ({percent(pairs[name][1])}) %" for name in sorted(shown))


def _evaluated(model: Model, features: Features, options: TrainOptions) -> Report:
    """Evaluate a model on what was held out of its training, or by cross-validation where nothing was."""
    if not (features.index.test or features.index.validation):
        return _cross_validated(model, features, options)
    return _evaluate_int8(model, features, options) if _is_int8(features) else _measured(model, features)


def _is_int8(features: Features) -> bool:
    return any(trunk.choice.precision == "int8" for trunk in features.runner.trunks)


def _measured(model: Model, features: Features) -> Report:
    """Evaluate a model on those of the features in hand that were held out of its training."""
    from regraft.pipeline import known
    from regraft.pipeline import report as reports

    of_model = known.Known(model)
    part, chosen, notes = known.choose_part(of_model, features.index, None)
    return reports.measure(of_model, features.with_index(chosen), part=part, notes=notes, source=features.index)


def _evaluate_int8(model: Model, features: Features, options: TrainOptions) -> Report:
    """Evaluate a model trained on int8 features as it will predict, in the best precision; say what int8 cost."""
    from regraft.inference import agreement
    from regraft.pipeline import report as reports

    coarse = _measured(model, features)
    choice = agreement.choose(EngineOptions(engine=options.features.engine.engine))
    fine = dataclasses.replace(model, trunks=tuple(trunk.on(choice) for trunk in model.trunks))
    again = compute(coarse.index, options.features, network=fine.network)
    precision = again.runner.trunks[0].choice.precision
    note = (
        f"The head was trained on int8 features, and the model predicts in {precision}, as measured "
        f"here; in int8 the accuracy on the same {len(coarse.index):,} images is {100 * coarse.accuracy:.1f} %."
    )
    probabilities, notes = fine.probabilities(again), [*coarse.notes, note]
    return reports.report_of(fine, again.index, probabilities, part=coarse.part, notes=notes, source=coarse.source)


def _cross_validated(model: Model, features: Features, options: TrainOptions) -> Report:
    """Evaluate on every image, each by a model that was trained as this one was, but without it."""
    import numpy as np

    from regraft.model import calibration
    from regraft.pipeline.known import CROSS_VALIDATION
    from regraft.pipeline.report import report_of

    probabilities = np.empty((len(features), len(model.classes)))
    calibrations = calibration.of_images(len(features), 1, None)
    folds = splitting.folds(features.index, options.split)
    for number, fold in enumerate(folds, start=1):
        log.info("Fold %d of %d", number, len(folds))
        part = features.with_index(fold)
        held_out = np.array([row.part == "test" for row in part.rows])
        fitted = fit_model(part, options.fit, Run(command=options))
        probabilities[held_out] = fitted.probabilities(part.part("test"))
        of_fold = calibration.of_images(held_out.sum(), fitted.temperature, fitted.true_probabilities)
        for values, folds_values in zip(calibrations, of_fold, strict=True):
            values[held_out] = folds_values
    notes = [
        f"measured by {len(folds)}-fold cross-validation: each image was classified by a model trained without it; "
        "the model that is kept was trained on all of them, and the interval is of its accuracy: wider and further up "
        "than for as many images that no model was trained on"
    ]
    if _is_int8(features):
        notes.append("measured on int8 features, though the model predicts in a better precision by default")
    return report_of(
        model,
        features.index,
        probabilities,
        part=CROSS_VALIDATION,
        notes=notes,
        source=features.index,
        calibrations=calibrations,
        learned_from=1 - 1 / len(folds),
    )


def _checkpoint(output: Path) -> Path:
    return output.with_name(f".{output.name}.checkpoint")


def _check_overwrite(earlier: Model | None, output: Path, options: TrainOptions) -> None:
    """Refuse to replace the model of another run, unless that is asked for; a damaged one too."""
    if earlier is None and not options.output.overwrite and output.exists() and any(output.iterdir()):
        raise UsageError(
            f"{output} already exists and holds the model of another run. Add --overwrite to replace it, or name "
            "another folder."
        )


def _fit_or_keep(features: Features, options: TrainOptions, output: Path, run: Run) -> Model:
    """Fit; where that diverges, save the last good weights as the model, unless an earlier one exists."""
    try:
        return pictured(fit_model(features, options.fit, run), features.index, options.fit)
    except Diverged as error:
        if processes.current().rank:
            raise
        _checkpoint(output).unlink(missing_ok=True)
        if (output / "model.json").exists():
            raise Diverged(f"{error} {output} still has the earlier model.") from error
        error.kept.save(output)
        raise Diverged(f"{error} The kept weights are in {output}.") from error
