"""The steps in their order: read → split → trunk → extract → fit → evaluate → keep.

The only folder that knows the order. The command line and the estimator are two
faces of it; the public functions of `regraft` are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.options import make, takes_options
from regraft.data import read as reading
from regraft.data import split as splitting
from regraft.data.index import Index
from regraft.data.read import ReadOptions
from regraft.data.split import SplitOptions
from regraft.network.options import EngineOptions
from regraft.pipeline import evaluate as measuring
from regraft.pipeline import extract as extraction
from regraft.pipeline import fit as fitting
from regraft.pipeline.compare import CompareOptions
from regraft.pipeline.options import LearnOptions, TrainOptions
from regraft.pipeline.serve_options import EvaluateOptions, PredictOptions
from regraft.pipeline.tune import TuneOptions
from regraft.training.options import FitOptions

if TYPE_CHECKING:
    from regraft.data.inspect import Inspection
    from regraft.evaluation.comparison import Comparison
    from regraft.features.extract import Features
    from regraft.model.model import Model
    from regraft.model.predict import Prediction
    from regraft.pipeline.report import Report
    from regraft.pipeline.tune import Tuned
    from regraft.training.lr_find import Sweep


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
    return extraction.extract(index, given, given)


@takes_options(FitOptions)
def fit(features: Features, **options: Any) -> Model:
    """Return the Model of a head trained on the features' training part (on all rows if they have no parts).

    Raises DataError if there are fewer than two classes, Diverged if the loss is no number.
    """
    return fitting.fit(features, make(FitOptions, options))


@takes_options(EvaluateOptions)
def evaluate(model: Model, data: Any, **options: Any) -> Report:
    """Return the Report of a model on labelled images.

    data: an Index, or a source as for `read`.
    part: "train", "validation", "test" or "all"; None: "test" if there is such a part, else "validation",
          else all. Images that the model knows keep the part that they had when it was trained.
    Raises DataError if no image is in that part, too many are broken, or a label is none of the model's.
    """
    return measuring.evaluate(model, data, make(EvaluateOptions, options))


@takes_options(TrainOptions)
def train(source: Any, output: str | Path, **options: Any) -> Report:
    """Read, split, extract, fit, evaluate, and save the model into the folder `output`, as `regraft train` does.

    A run that was killed goes on where it was when it is called again.
    """
    from regraft.pipeline import train as training

    return training.train(source, output, make(TrainOptions, options))


@takes_options(FitOptions)
def lr_find(features: Features, **options: Any) -> Sweep:
    """Return what the loss does while the learning rate rises, and a rate to begin with.

    Raises UsageError for a head that is not trained in epochs.
    """
    from regraft.pipeline import lr_find as rates

    return rates.lr_find(features, make(FitOptions, options))


@takes_options(CompareOptions)
def compare(source: Any, **options: Any) -> Comparison:
    """Return how backbones and cuts compare on a source or an Index, by cross-validated linear heads.

    Raises DataError if a class has a single image, UnknownName for a backbone or a cut, and what `extract` raises.
    """
    from regraft.pipeline.compare import compare as run

    return run(source, make(CompareOptions, options))


@takes_options(TuneOptions)
def tune(source: Any, output: str | Path, **options: Any) -> Tuned:
    """Search for head, rate, regularisation, views and cut on stored features; train the best into `output`.

    Raises UsageError if Optuna is not installed, and what `train` raises.
    """
    from regraft.pipeline.tune import tune as run

    return run(source, output, make(TuneOptions, options))


def inspect(data: Any) -> Inspection:
    """Return what is in an Index or a source: every image is decoded, broken ones are marked, never an error."""
    from regraft.data import inspect as inspection

    return inspection.inspect(data if isinstance(data, Index) else read(data))


@takes_options(PredictOptions)
def predict(model: Model, inputs: Any, **options: Any) -> list[Prediction]:
    """Return one Prediction per file of `inputs`, in order: a path, or a list of files, folders and archives."""
    from regraft.model import predict as serving

    inputs = [inputs] if isinstance(inputs, str | Path) else inputs
    return serving.predict(model, reading.read_inputs(inputs), make(PredictOptions, options))


@takes_options(EngineOptions)
def load(folder: str | Path, **options: Any) -> Model:
    """Open a model folder; raise RefusedFile if it is edited, cut short, foreign or from a later format."""
    from regraft.model import model
    from regraft.network import agreement

    return model.load(folder, agreement.choose(make(EngineOptions, options)))
