"""From a source of any size to a folder of features or predictions, unit by unit, here or on many machines."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core import plugins, remote
from regraft.core.errors import DataError, UsageError
from regraft.core.options import require
from regraft.core.progress import log, progress
from regraft.core.results import Result
from regraft.core.text import count, listed_lines
from regraft.data import read as reading
from regraft.data import units as listing
from regraft.data import usable
from regraft.data.index import Row
from regraft.data.read import SourceOptions
from regraft.data.shards import Unit
from regraft.data.units import Plan
from regraft.data.usable import SHOWN_FILES
from regraft.features import executors
from regraft.features.options import FeatureOptions
from regraft.inference import agreement
from regraft.inference.options import EngineOptions
from regraft.pipeline.options import ExtractOptions, PredictUnitsOptions

if TYPE_CHECKING:
    from regraft.features.job import Computing
    from regraft.features.units import Contents, Folder, Record
    from regraft.inference.runner import Runner

SAMPLE = 64  # rows of a unit, among which are the images that the precision is settled on
SAMPLED_UNITS = 10  # of which the first that has usable rows is taken


def is_folder(output: str | Path) -> bool:
    """Whether an output means a folder of units: a URL, or a name without an ending."""
    return remote.is_url(str(output)) or str(output).endswith(("/", "\\")) or not Path(output).suffix


@dataclass(frozen=True, repr=False)
class Written(Result):
    """A folder of features or of predictions.

    output: its path or URL.
    column: what it holds: "features" or "probabilities".
    units:  how many there are, and how many of them could not be read.
    images: how many are used, ignored, broken.
    """

    output: str
    column: str
    units: int
    failed: int
    images: Mapping[str, int]

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Written: {self.text()}>"

    def text(self) -> str:
        """Return one line, for a terminal."""
        images, left_out = self.images, [f"{self.images[name]:,} {name}" for name in ("ignored", "broken")]
        failed = f", {self.failed} of them could not be read" if self.failed else ""
        return (
            f"{self.column} of {images['used']:,} images in {self.output} ({', '.join(left_out)}; "
            f"{count(self.units, 'unit')}{failed})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {**dataclasses.asdict(self), "images": dict(self.images)}


def extract_units(source: str | Path, output: str | Path, runner: Runner, options: ExtractOptions) -> Written:
    """Write the features of all images of a source into a folder.

    source: see `data.units.plan`.
    output: a folder, a path or a URL; units that are committed there stay, the rest is computed.
    runner: of the network.
    Raises UsageError if it holds another job's results; DataError if more units or images fail than `max_broken`.
    """
    from regraft.features.job import ComputeFeatures, feature_contents

    check_source_options(options.source, "none with a folder as output: train takes --label-from of it")
    check_no_tail(options.features)
    store = options.features.store.store
    plan = listing.plan(source, options.executor.unit_rows)
    _settle(runner, plan, store)
    return _run(plan, output, feature_contents(runner), ComputeFeatures(), store, options)


def check_no_tail(options: FeatureOptions) -> None:
    """Raise UsageError where a tail is to be trained."""
    if options.trains_tail:
        raise UsageError("--tail is not for a folder of features: whole maps are kept by the store alone.")


def check_source_options(options: SourceOptions, expected: str) -> None:
    """Raise UsageError for what units are not read by."""
    for name in ("label_from", "path_column", "label_column", "part_column"):
        require(getattr(options, name) is None, name, getattr(options, name), expected)


def predict_units(
    folder: Path, source: str | Path, output: str | Path, engine: EngineOptions, options: PredictUnitsOptions
) -> Written:
    """Write a model's predictions for all images of a source into a folder; see `extract_units`.

    folder: of the model.
    """
    from regraft.model import compute_predictions
    from regraft.model.model import load

    model, store = load(folder, agreement.choose(engine)), options.store.store
    shown = options.top
    if shown.coverage is not None:
        model.least_probability(shown.coverage)  # refused before anything is read
    plan = listing.plan(source, options.executor.unit_rows)
    _settle(model.runner, plan, store)
    contents = compute_predictions.contents(model, folder, shown.false_alarms, shown.coverage)
    return _run(plan, output, contents, compute_predictions.ComputePredictions(), store, options)


def _run(
    plan: Plan, output: str | Path, contents: Contents, computing: Computing, store: Path | None, options: Any
) -> Written:
    """Compute the units that are missing, on the executor that the options name."""
    from regraft.features.job import Job
    from regraft.features.units import Folder

    executor = plugins.load(executors, options.executor.executor)
    folder = Folder(remote.storage_path(output))
    folder.begin(contents, str(plan.folder), plan.digest, len(plan.units))
    digest, column, shape = contents.digest, contents.column, contents.shape
    job = Job(plan.folder.url, folder.path.url, computing, digest, column, shape, store)
    with executor.opened(options.executor.address):
        failed = _compute(folder, functools.partial(executor.run, job), plan, digest)
    images = _finished(folder, plan, failed, options.broken.max_broken)
    return Written(str(folder.path), column, len(plan.units), len(failed), images)


def _settle(runner: Runner, plan: Plan, store: Path | None) -> None:
    """Settle the precision, once for all workers, on images of one of the first units; the network is converted now."""
    used = next(filter(None, (_sample_rows(plan, unit) for unit in plan.units[:SAMPLED_UNITS])), [])
    settle_on(used, runner, store)


def settle_on(used: Sequence[Row], runner: Runner, store: Path | None) -> None:
    """Settle the precision on images, if there are any, and convert the network."""
    from regraft.features.job import shelf_folder
    from regraft.features.worker import sample

    for one in runner.each if used else ():
        images = functools.partial(sample, used, one.trunk.preprocess)
        one.settle(lambda trunk: shelf_folder(trunk, store), images)
        one.start(shelf_folder(one.trunk, store), images)


def _sample_rows(plan: Plan, unit: Unit) -> list[Row]:
    """Return the first usable rows of a unit; none if it can't be read, of which its worker will say more."""
    try:
        listed = list(itertools.islice(listing.rows(unit, plan.folder), SAMPLE))
    except (DataError, OSError):
        return []
    return [row for row in (reading.read_file(row, is_named=False) for row in listed) if row.status == "used"]


def _compute(folder: Folder, run: Any, plan: Plan, digest: str) -> list[str]:
    """Compute the units that are not committed; return why some could not be read."""
    from regraft.features.units import unit_name

    done = folder.committed()
    missing = [unit for unit in plan.units if unit_name(unit, digest) not in done]
    if done:
        log.info("%d of %d units are there already.", len(plan.units) - len(missing), len(plan.units))
    failed = []
    with progress("units", len(missing)) as advance:
        for outcome in run(missing) if missing else ():
            if isinstance(outcome, str):
                failed.append(outcome)
                log.warning("A unit failed: %s", outcome)
            advance(1)
    return failed


def _finished(folder: Folder, plan: Plan, failed: list[str], max_broken: float) -> Counter[str]:
    """Return the counts of all units; raise DataError if more of them, or of the images, failed than are allowed."""
    if len(failed) > max_broken * len(plan.units):
        raise DataError(
            f"{len(failed)} of {len(plan.units)} units could not be read, and at most {max_broken:.1%} may fail; the "
            f"others are in {folder.path}. Fix them and give the command again:"
            f"{listed_lines(failed, SHOWN_FILES)}"
        )
    counts = _counts(folder.committed().values())
    total = counts["used"] + counts["broken"]
    if counts["broken"] > usable.allowed(total, max_broken):
        raise DataError(
            f"{counts['broken']} of {total} images are broken, and at most {max_broken:.1%} may be; each has its "
            f"reason in {folder.path}. Fix or remove them, or raise --max-broken."
        )
    if not failed:
        folder.succeed()
    return counts


def _counts(records: Iterable[Record]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.counts)
    return counts
