"""The certificate: on the user's images and on made ones an export gives what the model gives, or nothing is written.

The model's own answers in float32 and those of the written file, run in a
runtime of its format, enter; differences, changed labels and accuracies leave.
Which images are compared is left to the pipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from regraft.core.text import count, listed_lines, percent
from regraft.data.labels import LABEL_SEPARATOR
from regraft.evaluation.significance import wilson
from regraft.training.losses import EVEN

if TYPE_CHECKING:
    from regraft.model.model import Model

SHOWN_IMAGES = 10


class Gate(NamedTuple):
    """What an export must hold.

    difference: of the probabilities of an image from the model's, the largest that is allowed,
    within:     for this share of the images.
    equal:      the share of the images whose labels must be the model's; ties within the difference are excepted.
    """

    difference: float
    within: float = 1.0
    equal: float = 1.0

    def text(self) -> str:
        """Return it in words."""
        within = "every image" if self.within == 1 else f"{percent(self.within, 0)} % of the images"
        labels = "all labels equal" if self.equal == 1 else f"{percent(self.equal, 0)} % of the labels equal"
        return f"within {self.difference} for {within}, {labels}"


GATES = {"float32": Gate(0.005), "float16": Gate(0.02), "int8": Gate(0.02, 0.95, 0.99)}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One image: what the model and the export give.

    difference: the largest of its probabilities.
    label:      the model's; of an image with several labels all of them, with commas between.
    exported:   the export's.
    true:       its label, where that is known, not in conflict, and the image was not trained on.
    tie:        whether the labels differ only where the model's probabilities are closer than the gate's difference.
    """

    path: str
    difference: float
    label: str
    exported: str
    true: str | None = None
    tie: bool = False

    @property
    def changed(self) -> bool:
        """Whether the label is another, and that is no tie."""
        return self.label != self.exported and not self.tie


@dataclass(frozen=True, kw_only=True)
class Group:
    """The images of one origin: the user's, or made ones."""

    images: tuple[Compared, ...]

    @property
    def changed(self) -> list[Compared]:
        """Those with another label."""
        return [image for image in self.images if image.changed]

    @property
    def differences(self) -> np.ndarray:
        """The largest difference of each image, (n,)."""
        return np.array([image.difference for image in self.images])

    def accuracies(self) -> tuple[int, int, int]:
        """Return how many images have a known label, how many the model has right, and how many the export."""
        known = [image for image in self.images if image.true is not None]
        right = sum(image.true == image.label for image in known)
        return len(known), right, sum(image.true == image.exported for image in known)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        labelled, right, exported_right = self.accuracies()
        data: dict[str, Any] = {"images": len(self.images), "labels_changed": len(self.changed)}
        if self.images:
            data |= {"largest_difference": round(float(self.differences.max()), 6)}
            data |= {"percentile_95": round(float(np.percentile(self.differences, 95)), 6)}
        if labelled:
            data |= {"labelled": labelled, "accuracy": right / labelled, "exported_accuracy": exported_right / labelled}
        data["ties"] = sum(image.tie and image.label != image.exported for image in self.images)
        changed = [{k: v for k, v in dataclasses.asdict(image).items() if k != "tie"} for image in self.changed]
        return {**data, "changed": changed}

    def lines(self, title: str) -> list[str]:
        """Return the figures as lines."""
        if not self.images:
            return [f"{title}: none"]
        largest, percentile = self.differences.max(), np.percentile(self.differences, 95)
        lines = [
            f"{title}: {count(len(self.images), 'image')}; probabilities differ by at most {_shown(largest)}, "
            f"in 95 % of the images by at most {_shown(percentile)}; {count(self.changed, 'label')} changed"
        ]
        labelled, right, exported_right = self.accuracies()
        if labelled:
            low, high = wilson(right, labelled)
            lines.append(
                f"  accuracy on the {labelled:,} with a known label that were not trained on: the model "
                f"{percent(right / labelled)} % (95 % interval {percent(low)} to {percent(high)}), "
                f"the export {percent(exported_right / labelled)} %"
            )
        return [*lines, *(f"  {image.path}: {image.label} became {image.exported}" for image in self.changed)]


def _shown(difference: float) -> str:
    return f"{difference:.4f}" if difference == 0 or difference >= 0.0001 else f"{difference:.0e}"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was compared, and whether it passes.

    photographs: the user's images.
    made:        the made ones.
    files:       the sha256 of the files that were run.
    """

    format: str
    precision: str
    photographs: Group
    made: Group
    versions: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def gate(self) -> Gate:
        """What it has to hold."""
        return GATES[self.precision]

    @property
    def failures(self) -> list[str]:
        """What does not hold, a line each; of int8 only the user's images count, for which it was calibrated."""
        groups = [self.photographs] if self.precision == "int8" else [self.photographs, self.made]
        images = [image for group in groups for image in group.images]
        return [*_too_far(images, self.gate), *_changed(images, self.gate), *self._less_accurate()]

    def _less_accurate(self) -> list[str]:
        labelled, right, exported_right = self.photographs.accuracies()
        if not labelled:
            return []
        low, high = wilson(right, labelled)
        if low <= exported_right / labelled <= high:
            return []
        return [
            f"the accuracy is {exported_right / labelled:.1%}; expected {low:.1%} to {high:.1%}, the model's interval"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "format": self.format,
            "precision": self.precision,
            "gate": self.gate._asdict(),
            "passed": not self.failures,
            "photographs": self.photographs.to_dict(),
            "made": self.made.to_dict(),
            "versions": dict(self.versions),
            "sha256": dict(self.files),
        }

    def text(self) -> str:
        """Return it as lines."""
        outcome = "not held" if self.failures else "held"
        return "\n".join(
            [
                f"{self.format} in {self.precision} against the model in float32 on PyTorch",
                *self.photographs.lines("Your images"),
                *self.made.lines("Made images"),
                f"The gate, {self.gate.text()}, is {outcome}.",
                "Versions: " + ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            ]
        )


def _too_far(images: Sequence[Compared], gate: Gate) -> list[str]:
    far = [image for image in images if not image.difference <= gate.difference]
    if len(images) - len(far) >= gate.within * len(images):
        return []
    lines = [f"{image.path}: {image.difference:.4f}" for image in sorted(far, key=lambda image: -image.difference)]
    return [
        f"the probabilities of {len(far)} of {len(images)} images differ by more than {gate.difference}:"
        + listed_lines(lines, SHOWN_IMAGES)
    ]


def _changed(images: Sequence[Compared], gate: Gate) -> list[str]:
    changed = [image for image in images if image.changed]
    if len(images) - len(changed) >= gate.equal * len(images):
        return []
    lines = [f"{image.path}: {image.label} became {image.exported}" for image in changed]
    return [f"{len(changed)} of {len(images)} images have another label:" + listed_lines(lines, SHOWN_IMAGES)]


def compare(
    model: Model,
    expected: np.ndarray,
    probabilities: np.ndarray,
    *,
    path: str,
    difference: float,
    true: str | None = None,
) -> Compared:
    """Return what the model's probabilities (n_classes,) of an image and the export's say.

    difference: the gate's, within which the labels may differ by a tie.
    """
    labels, exported = (_labels(model, row) for row in (expected, probabilities))
    return Compared(
        path=path,
        difference=float(np.abs(expected - probabilities).max()),
        label=LABEL_SEPARATOR.join(labels),
        exported=LABEL_SEPARATOR.join(exported),
        true=true,
        tie=labels != exported and _is_tie(model, expected, set(labels) ^ set(exported), difference),
    )


def _labels(model: Model, probabilities: np.ndarray) -> tuple[str, ...]:
    if model.loss.multilabel:
        return model.predicted_labels(probabilities[None])[0]
    return (model.classes[int(probabilities.argmax())],)


def _is_tie(model: Model, expected: np.ndarray, differing: set[str], difference: float) -> bool:
    """Tell whether the labels that differ have probabilities that are almost equal, or almost their thresholds."""
    codes = [model.classes.index(label) for label in differing]
    if not model.loss.multilabel:
        return bool(np.ptp(expected[codes]) <= difference)
    thresholds = np.array(model.thresholds or [EVEN] * len(model.classes))
    return bool(np.abs(expected - thresholds)[codes].max() <= difference)
