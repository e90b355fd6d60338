"""The model: trunks, tail and head as one, which gives photographs the probabilities of its classes.

What was trained enters, or a folder; probabilities leave, or a folder that
opens on another machine without a network (see `folder`). A model without a
trained tail needs no PyTorch once its frozen part is converted: its head is
arrays, and its products are NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from regraft.core import plugins
from regraft.core.errors import DataError, RefusedFile, first_line
from regraft.core.text import count
from regraft.core.version import versions
from regraft.data.index import Row
from regraft.data.read import read_inputs
from regraft.inference.runner import CutNetwork, Runner
from regraft.model import calibration, evidence, ranges, stored_network
from regraft.model import folder as folders
from regraft.model import predict as predicting
from regraft.model.evidence import Evidence
from regraft.model.predict import FALSE_ALARMS, Answer, Prediction
from regraft.model.provenance import Predictions
from regraft.network.tensors import to_torch
from regraft.network.trunk import Choice, Tail, Trunk, only
from regraft.training import heads
from regraft.training.examples import Inputs
from regraft.training.history import History
from regraft.training.losses import EVEN, Loss
from regraft.training.options import read_options

if TYPE_CHECKING:
    from torch import nn

    from regraft.model.module import WholeModel


ROWS = 256  # whose logits are computed at once


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Model:
    """A trained classifier: photographs in, probabilities of its classes out.

    trunks:       the frozen part, with the preprocessing that belongs to its weights; several, where their features are
                  joined.
    scales, roots: by which the features of each are divided where there are several, and whether square roots are
                  taken of them before (see `Runner`).
    head_name, head_options, head_weights: what gives the logits, (n, outputs), of the features, or of the tail's
                  outputs: the plug-in, its options, and its state_dict as arrays.
    tail:         the network above the cut, if it was trained.
    loss:         what the logits mean.
    temperature:  by which the logits are divided, see `calibration`; 1 in models before format 5.
    true_probabilities: (n,) float64, rising: what images that were not trained on were given for their true label (see
                  `calibration`); None as for `evidence`.
    evidence:     what tells a picture of none of the classes; None where an image may have several labels, where
                  nothing was held out, and in models before format 5.
    thresholds:   where an image may have several labels: the probability from which each is predicted.
    images:       id → (label, part) of the images of the run, so that a later evaluation knows what was trained on.
    measures:     what was measured when it was trained, by part.
    predictions:  what that was measured by; None in models before format 3.
    run:          the sha256 of all that decided the training, so that a finished run is known again.
    """

    trunks: tuple[Trunk, ...]
    head_name: str
    head_options: Mapping[str, Any]
    head_weights: Mapping[str, np.ndarray]
    classes: tuple[str, ...]
    scales: tuple[float, ...] = (1.0,)
    roots: bool = False
    tail: Tail | None = None
    loss: Loss = Loss()
    temperature: float = 1.0
    true_probabilities: np.ndarray | None = None
    evidence: Evidence | None = None
    thresholds: tuple[float, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    images: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    measures: Mapping[str, Any] = field(default_factory=dict)
    predictions: Predictions | None = None
    versions: Mapping[str, str] = field(default_factory=versions)
    run: str = ""

    def __repr__(self) -> str:
        """Return one line, for a session."""
        names = " and ".join(trunk.name for trunk in self.trunks)
        return f"<Model: {names}, {self.head_name}, {count(self.classes, 'class', 'classes')}>"

    @property
    def trunk(self) -> Trunk:
        """The trunk of a model that has one; raises UsageError if it joins several."""
        return only(self.trunks)

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return int(self.options.get("seed", 0))

    @cached_property
    def runner(self) -> Runner:
        """What runs the trunks here; on every engine the labels that the model is confident of must be the same."""
        return Runner(self.trunks, self.probabilities, self.scales, roots=self.roots)

    @property
    def network(self) -> CutNetwork:
        """What runs the trunks, and the tail, to continue training from."""
        return CutNetwork(self.runner, self.tail)

    def probabilities(self, features: Inputs) -> np.ndarray:
        """Return (n, n_classes) float64 probabilities of features (n, *runner.output_shape).

        Rows sum to 1, unless an image may have several labels.
        """
        return self.loss.probabilities(self.logits(features) / self.temperature)

    def logits(self, features: Inputs) -> np.ndarray:
        """Return the logits (n, outputs) of features (n, *runner.output_shape), as the head gives them."""
        if self.tail is not None:
            from regraft.training import loop

            return loop.logits(self.trained_module, features)
        logits = plugins.load(heads, self.head_name).logits
        batches = [features[start : start + ROWS] for start in range(0, len(features), ROWS)]
        rows = [logits(self.head_weights, batch, self._head_settings) for batch in batches]
        n_outputs = self.loss.outputs(len(self.classes))
        return np.concatenate([np.empty((0, n_outputs), np.float32), *rows])

    def predict(
        self,
        inputs: Any,
        *,
        top: int = 3,
        false_alarms: float = FALSE_ALARMS,
        coverage: float | None = None,
        nearest: int = 0,
        tta: int = 1,
        store: str | Path | None = None,
    ) -> list[Prediction]:
        """Return one Prediction per image, in order; one that can't be read is "broken", and says why.

        inputs: a path of an image, a folder, an archive or a CSV; the bytes of an image file; a PIL image; an array
                (H, W, 3), (H, W) or (n, H, W, 3) uint8; any number of these; a DataFrame with a column of paths; or an
                Index.
        top:    how many labels each names.
        false_alarms: the fraction of images of the classes that may be called unknown; 0: none is.
        coverage: how often the true label is to be in `Prediction.prediction_set`, such as 0.95; None: without sets.
        nearest: how many of the training images that the model keeps each names: those most like it.
        tta:    in how many poses each image is seen, of which the probabilities are the mean, see `features/poses`.
        store:  folder of the feature store, where the converted network is kept; None: the user's cache.
        Raises DataError for a coverage that the model can't give.
        """
        if coverage is not None:
            self.least_probability(coverage)
        limit = self.evidence.threshold(false_alarms) if self.evidence else math.inf
        head = partial(self._answers, nearest=nearest, tta=tta)
        answers = predicting.stream_answers(read_inputs(inputs), self.runner, head, store, tta)
        made = (self._prediction(row, answer, top, limit, coverage) for row, answer in answers)
        return [replace(each, tta=tta) for each in made]

    def _answers(self, features: np.ndarray, nearest: int = 0, tta: int = 1) -> list[Answer]:
        """Return for each image, of the mean of its `tta` rows of features (n · tta, …), probabilities (n_classes,).

        Beside them, of the image as it is, novelty and nearest training images.
        """
        logits = self.logits(features)
        probabilities = (
            self.loss.probabilities(logits / self.temperature).reshape(-1, tta, len(self.classes)).mean(axis=1)
        )
        features, logits = features[::tta], logits[::tta]
        novelty = self.evidence.novelty(features, logits).tolist() if self.evidence else [None] * len(logits)
        like = predicting.neighbours(self.evidence, self.images, features, nearest)
        return list(zip(probabilities, novelty, like, strict=True))

    def novelty(self, features: Inputs) -> np.ndarray:
        """Return (n,) how unlike the training images these are, by their features; raise DataError without evidence."""
        if self.evidence is None:
            raise DataError("The model keeps no training images that tell the unknown. Train it again.")
        starts = range(0, len(features), ROWS)
        answers = [self._answers(np.asarray(features[start : start + ROWS])) for start in starts]
        return np.array([novelty for batch in answers for _, novelty, _ in batch], np.float64)

    def least_probability(self, coverage: float) -> float:
        """Return the probability from which a label is in a prediction set of this coverage, such as 0.95.

        Raises DataError if the model can't give it.
        """
        if self.loss.multilabel:
            raise DataError("Its images have several labels each; a coverage is for models of one label an image.")
        if self.true_probabilities is None:
            raise DataError(
                "The model keeps nothing that a coverage could be taken from: it was trained by an earlier version of "
                "regraft, or nothing was left out of its training. Train it again."
            )
        return calibration.least_probability(self.true_probabilities, coverage)

    def predict_proba(self, inputs: Any, *, store: str | Path | None = None) -> np.ndarray:
        """Return (n, n_classes) float64 probabilities of images, a row each, in the order of `classes`.

        inputs, store: as for `predict`.
        Raises DataError for an image that can't be read.
        """
        rows = []
        answers = predicting.stream_answers(read_inputs(inputs), self.runner, self.probabilities, store)
        for row, probabilities in answers:
            if probabilities is None:
                raise DataError(f"{row.path} is {row.status}: {row.reason}. `predict` has a row for it all the same.")
            rows.append(probabilities)
        return np.array(rows).reshape(-1, len(self.classes))

    def _prediction(
        self, row: Row, answer: Answer | None, top: int, limit: float, coverage: float | None
    ) -> Prediction:
        if answer is None:
            return Prediction(path=row.path, status=row.status, error=row.reason)
        probabilities, novelty, nearest = answer
        order = np.argsort(-probabilities, kind="stable")
        ranked = tuple((self.classes[code], float(probabilities[code])) for code in order[:top])
        labels = self.predicted_labels(probabilities[None])[0] if self.loss.multilabel else None
        more: dict[str, Any] = {"novelty": novelty, "limit": limit, "nearest": nearest}
        known = Prediction(path=row.path, status="ok", ranked=ranked, labels=labels, **more)
        if coverage is None:
            return known
        held = calibration.prediction_sets(probabilities[None], self.least_probability(coverage))[0, order]
        return replace(known, prediction_set=tuple(self.classes[code] for code in order[held]), coverage=coverage)

    def predicted_labels(self, probabilities: np.ndarray) -> list[tuple[str, ...]]:
        """Return for each row of probabilities (n, n_classes), of images with several labels, those predicted."""
        thresholds = np.array(self.thresholds or [EVEN] * len(self.classes))
        return [tuple(np.array(self.classes, object)[row]) for row in probabilities >= thresholds]

    @cached_property
    def head(self) -> nn.Module:
        """The head as a torch module in eval mode: features, or the tail's outputs, → logits (n, outputs)."""
        import torch

        plugin, n_outputs = plugins.load(heads, self.head_name), self.loss.outputs(len(self.classes))
        with torch.random.fork_rng(devices=[]):  # it is built with weights that are drawn, and not kept
            head: nn.Module = plugin.build(self._head_shape, n_outputs, self._head_settings)
        try:
            head.load_state_dict(to_torch(self.head_weights))
        except RuntimeError as error:  # the arrays were enough for the logits of `_check_head`
            raise RefusedFile(f"The head's weights do not fit its options: {first_line(error)}") from error
        return head.eval()

    @property
    def trained_module(self) -> nn.Sequential:
        """All that was trained, as a torch module: features (n, *runner.output_shape) → logits (n, outputs)."""
        from torch import nn

        return nn.Sequential(*([self.tail.module] if self.tail else []), self.head)

    @property
    def module(self) -> WholeModel:
        """The whole model as a torch module: images (n, S, S, 3) uint8 → probabilities (n, n_classes) float32.

        The images are preprocessed as `trunk.preprocess` does it, and not normalised: that is the module's first step.
        Where several trunks are joined, it takes the images once for each of them, in order.
        It is in eval mode; the frozen part stays so, and has no gradient.
        """
        from regraft.model.module import WholeModel, side_by_side

        trunk = side_by_side([trunk.module for trunk in self.trunks], self.scales, roots=self.roots)
        return WholeModel(trunk, self.trained_module, self.loss, self.temperature)

    def part_of(self, identifier: str) -> str | None:
        """Return the part that an image with these bytes had when the model was trained, None if it had none."""
        known = self.images.get(identifier)
        return known[1] if known else None

    def save(self, folder: str | Path, card: str = "", *, overwrite: bool = False) -> None:
        """Write the model into `folder`, whole or not at all; with `overwrite` in place of a model that is there.

        card: what its README.md says of it, if anything (see `report/card`).
        Raises UsageError if the folder holds another model or something else, StoreError if the disk refuses.
        """
        contents = {
            folders.DESCRIPTION: folders.encode_description(self._description()),
            folders.NETWORK: safetensors.numpy.save(stored_network.tensors(self.trunks, self.tail)),
            folders.HEAD: safetensors.numpy.save(dict(self.head_weights)),
            folders.IMAGES: folders.encode_images(self.images),
        }
        if self.predictions:
            contents[folders.PREDICTIONS] = folders.encode_predictions(
                self.predictions.ids, self.predictions.probabilities, self.predictions.calibrations
            )
        if self.evidence:
            contents[folders.EVIDENCE] = safetensors.numpy.save(self.evidence.tensors())
        if self.true_probabilities is not None:
            contents[folders.CALIBRATION] = safetensors.numpy.save({"true_probabilities": self.true_probabilities})
        folders.write(Path(folder), contents, card, overwrite=overwrite)

    def _description(self) -> dict[str, Any]:
        return {
            "classes": list(self.classes),
            **stored_network.describe(self.trunks, self.tail),
            "scales": list(self.scales),
            "roots": self.roots,
            "head": {"name": self.head_name, "options": dict(self.head_options)},
            "loss": {"name": self.loss.name, "several": self.loss.multilabel},
            "temperature": self.temperature,
            "thresholds": self.thresholds,
            "options": dict(self.options),
            "chosen": dict(self.chosen),
            "versions": dict(self.versions),
            "measures": dict(self.measures),
            "history": self.history.to_list(),
            "run": self.run,
        }

    @property
    def _head_shape(self) -> tuple[int, ...]:
        return self.tail.output_shape if self.tail else self.runner.output_shape

    @cached_property
    def _head_settings(self) -> Any:
        """The head's own checked Options."""
        return read_options(plugins.load(heads, self.head_name).Options, self.head_options, "option of the head")


def load(folder: str | Path, choice: Choice, own: nn.Module | None = None) -> Model:
    """Open a model folder; raise RefusedFile if it is edited, cut short, foreign or from a later format.

    choice: what computes the frozen part here.
    own:    the module that was its backbone, if that was the user's own.

    The network is built when it has to be converted or run by PyTorch; that its tensors fit is known then.
    """
    folder = Path(folder)
    try:
        return _restore(folder, folders.read(folder), choice, own)
    except RefusedFile:
        raise
    except Exception as error:  # a folder from elsewhere can be wrong in any way
        raise RefusedFile(f"{folder} is not a model that this regraft can open: {first_line(error)}") from error


def _restore(folder: Path, description: Mapping[str, Any], choice: Choice, own: nn.Module | None) -> Model:
    ranges.check(folder / folders.DESCRIPTION, description)
    trunks, tail = stored_network.restore(folder / folders.NETWORK, description, choice, own)
    classes, loss = tuple(description["classes"]), ranges.loss(description.get("loss", {}))
    ranges.check_classes(classes, least=1 if loss.multilabel else 2)
    predictions = folders.read_predictions(folder, len(classes))
    model = Model(
        trunks=trunks,
        scales=ranges.scales(description.get("scales", [1.0]), len(trunks)),
        roots=bool(description.get("roots", False)),
        tail=tail,
        head_name=description["head"]["name"],
        head_options=description["head"]["options"],
        head_weights=folders.read_head(folder),
        classes=classes,
        loss=loss,
        temperature=float(description.get("temperature", 1.0)),
        true_probabilities=folders.read_true_probabilities(folder),
        evidence=evidence.read(folder / folders.EVIDENCE),
        thresholds=ranges.thresholds(description.get("thresholds"), len(classes)),
        options=description["options"],
        chosen=description["chosen"],
        history=History.from_list(description["history"]),
        images=folders.read_images(folder),
        measures=description["measures"],
        predictions=Predictions(*predictions) if predictions else None,
        versions=description["versions"],
        run=str(description.get("run", "")),
    )
    _check_head(model)
    return model


def _check_head(model: Model) -> None:
    """Raise RefusedFile if the head's weights do not go with the features and the classes."""
    plugin, n_outputs = plugins.load(heads, model.head_name), model.loss.outputs(len(model.classes))
    zeros = np.zeros((1, *model._head_shape), np.float32)
    try:
        shape = plugin.logits(model.head_weights, zeros, model._head_settings).shape
    except (KeyError, ValueError) as error:
        raise RefusedFile(f"The head's weights do not fit its options and the features: {first_line(error)}") from error
    if shape != (1, n_outputs):
        raise RefusedFile(f"The head gives {shape[-1]} outputs; the classes need {n_outputs}.")
