"""The linear head's cross-validation beside scikit-learn's, and 10,000 full-batch steps of a softmax head beside Keras.

First 10,000 rows of 1,280 features in 10 classes: 5 folds, 10 strengths of regularisation, and the regression on all
rows with the best of them. All contestants have the same folds; "losses" are the mean log losses of the rows left out,
from the strongest to the weakest. The features are EfficientNet-Lite0's of CIFAR-10's test part where photographs are
given (extracted before, not timed), else random numbers with a spectrum that falls as that of features does.

Then a dense layer with softmax on 2,400 rows of 2,048 random numbers in 5 classes, SGD with momentum 0.9, every step on
all rows. Keras takes --peer-steps of the --steps, and its time is scaled to all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import _bench
import numpy as np

ROWS, WIDTH, CLASSES = 10_000, 1280, 10
STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(10, 0, -1))
LEARNING_RATE = 1e-3


def main() -> None:
    """Print both tables."""
    arguments = _arguments()
    _bench.only_run({**VALIDATION, **STEPS}, arguments)
    about = _bench.header()
    if _wanted(VALIDATION, arguments):
        with tempfile.TemporaryDirectory(prefix="regraft-bench-") as folder:
            features, what = _features(arguments.data, Path(folder))
            ours, *peers = _bench.contest(VALIDATION, arguments, features=features)
            title = f"5-fold cross-validation of {len(STRENGTHS)} regularisations, {what}"
            _bench.compare(title, ours, peers, output=arguments.output, about=about)
    if _wanted(STEPS, arguments):
        ours, *peers = _bench.contest(STEPS, arguments, once=("Keras fit",))
        title = f"{arguments.steps} full-batch steps of a softmax head, 2,400 x 2,048, 5 classes"
        _bench.compare(title, ours, peers, output=arguments.output, about=about)


def _wanted(table: dict[str, _bench.Contestant], arguments: argparse.Namespace) -> bool:
    return not arguments.only or bool(set(table) & set(arguments.only))


def _arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--peer-steps", type=int, default=1000, help="how many of them Keras takes")
    return parser.parse_args()


def _features(data: str | None, folder: Path) -> tuple[Path, str]:
    """Write features and labels to a file; return it and what they are."""
    path = folder / "features.npz"
    if data and Path(data, "cifar10-half.zip").is_file():
        with _bench.photographs(data, "cifar10-half") as photographs:
            test = next(photographs.rglob("test"))
            _bench.regraft("extract", test, "-o", path, cache=folder)
        with np.load(path) as arrays:
            features, labels = arrays["features"], np.unique(arrays["labels"], return_inverse=True)[1]
        what = "EfficientNet-Lite0, CIFAR-10"
    else:
        features, labels = _random(ROWS, WIDTH, CLASSES, 0.12)
        what = "random numbers"
    centred = features - features.mean(axis=0)
    np.savez(path, features=centred / np.sqrt(np.square(centred).mean()), labels=labels)
    return path, f"{what}, {features.shape[0]:,} x {features.shape[1]:,}, {labels.max() + 1} classes"


def _random(rows: int, width: int, classes: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Return features whose spectrum falls over one and a half decades, float32, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(rows) % classes)
    values = rng.normal(size=(classes, width))[labels] * apart + rng.normal(size=(rows, width))
    mixed = (values * np.logspace(0, -1.5, width)) @ (rng.normal(size=(width, width)) / np.sqrt(width))
    return mixed.astype(np.float32), labels


# Cross-validation


def _regraft(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit the linear head as it is, but that it tries all of STRENGTHS."""
    from regraft import FeatureClassifier
    from regraft.training.heads import linear

    features, labels = _read(arguments)
    FeatureClassifier().fit(features[::50], labels[::50])  # imports
    linear.GRID, linear.WORSE = STRENGTHS, len(STRENGTHS)
    began = time.perf_counter()
    fitted = FeatureClassifier().fit(features, labels)
    seconds = time.perf_counter() - began
    chosen = fitted.chosen_
    return {"seconds": seconds, **_notes([loss for _, loss in chosen["tried"]], chosen["regularisation"])}


def _sklearn(jobs: int | None) -> _bench.Contestant:
    """Return scikit-learn's search, with its default tolerance, on one process or several."""

    def run(arguments: argparse.Namespace) -> dict[str, Any]:
        from sklearn.linear_model import LogisticRegressionCV

        features, labels = _read(arguments)
        model = LogisticRegressionCV(
            Cs=[1 / strength for strength in STRENGTHS],
            cv=_folds(labels),
            scoring="neg_log_loss",
            max_iter=1000,
            n_jobs=jobs,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        )
        began = time.perf_counter()
        model.fit(features, labels)
        seconds = time.perf_counter() - began
        losses = -np.reshape(model.scores_, (5, len(STRENGTHS))).mean(axis=0)
        return {"seconds": seconds, **_notes(losses, 1 / float(np.squeeze(model.C_)))}

    return run


def _folds(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds that the linear head makes."""
    from regraft.training.examples import Examples
    from regraft.training.heads import linear

    folds = linear._folds(Examples(labels[:, None], labels), seed=0)
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(5)]


def _read(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    with np.load(arguments.features) as arrays:
        return arrays["features"], arrays["labels"]


def _notes(losses: Any, strength: float) -> dict[str, Any]:
    return {"chosen": strength, "losses": " ".join(f"{loss:.4f}" for loss in losses)}


# Full-batch steps


def _regraft_steps(arguments: argparse.Namespace) -> dict[str, Any]:
    from regraft import FeatureClassifier

    options: dict[str, Any] = {"optimizer": "sgd", "learning_rate": LEARNING_RATE, "batch_size": "all"}
    head = FeatureClassifier(
        head="mlp", head_options={"hidden": None}, epochs=arguments.steps, patience=None, **options
    )
    features, labels = _random(2400, 2048, 5, 0.05)
    FeatureClassifier(**head.get_params()).set_params(epochs=1).fit(features, labels)  # imports, not timed
    began = time.perf_counter()
    head.fit(features, labels)
    return {"seconds": time.perf_counter() - began, **_after(head.history_.rows, arguments.peer_steps)}


def _after(rows: Any, steps: int) -> dict[str, float]:
    """Return the loss before the last step that the peer takes, if that many were taken."""
    return {f"loss in step {steps}": rows[steps - 1].loss} if len(rows) >= steps else {}


def _keras(arguments: argparse.Namespace) -> dict[str, Any]:
    import keras

    features, labels = _random(2400, 2048, 5, 0.05)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    model = keras.Sequential([keras.Input((2048,)), keras.layers.Dense(5, activation="softmax")])
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    steps = min(arguments.steps, arguments.peer_steps)
    model.fit(features, labels, batch_size=2400, epochs=1, verbose=0)  # compiled, not timed
    began = time.perf_counter()
    history = model.fit(features, labels, batch_size=2400, epochs=steps - 1, verbose=0).history
    seconds = (time.perf_counter() - began) * arguments.steps / (steps - 1)
    return {"seconds": seconds, f"loss in step {steps}": history["loss"][-1], "steps taken": steps}


VALIDATION: dict[str, _bench.Contestant] = {
    "regraft": _regraft,
    "scikit-learn LogisticRegressionCV": _sklearn(None),
    "the same, a process a core": _sklearn(_bench.cores()),
}
STEPS: dict[str, _bench.Contestant] = {"regraft head": _regraft_steps, "Keras fit": _keras}


if __name__ == "__main__":
    main()
