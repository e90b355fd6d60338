"""Which backbone, cut where: several compared side by side by cross-validated linear heads, and which one to take.

Each candidate's scores in the same rounds of a cross-validation enter, with its
cost; a `Comparison` leaves, as lines for the terminal and as JSON-able data.
Cross-validation and timing are left to the pipeline, the page to `report`.

The rule. Each candidate is compared with the most accurate one by the corrected
resampled t-test, with the Holm-Bonferroni correction for the number of tests.
What is no more than a standard error behind the most accurate (the rule of
Breiman et al. 1984) is as good a choice: of these the fastest is taken, and of
those nearly as fast the most accurate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from regraft.core.results import Result
from regraft.core.text import percent, table
from regraft.evaluation.learning_curve import LearningCurve
from regraft.evaluation.significance import Paired, corrected_t_test, holm_bonferroni, points, wilson
from regraft.evaluation.words import DASH

NEARLY_AS_FAST = 1.2  # times as long per photo: no timing is more precise


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A backbone and a cut, and how good a linear head on its features is.

    width:        number of an image's features.
    scores:       accuracy in each round of the cross-validation, (rounds,); the same rounds for all candidates.
    accuracy:     share of the images, mean over the repeats.
    log_loss:     in nats per image, mean over the repeats.
    milliseconds: per photo with all cores, from the file's bytes to the features.
    megabytes:    of the weights below the cut.
    """

    backbone: str
    cut: str
    width: int
    scores: tuple[float, ...]
    accuracy: float
    log_loss: float
    milliseconds: float
    megabytes: float

    @property
    def name(self) -> str:
        """The backbone, and the cut where it is not the usual one."""
        return self.backbone if self.cut == "pooled" else f"{self.backbone} at {self.cut}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Result):
    """Candidates on the same images, the most accurate first.

    source:         what was read.
    images:         how many were evaluated, of which `separate` count if duplicates and groups count once.
    classes:        their names.
    folds:          of the cross-validation, repeated `repeats` times.
    notes:          what a reader must know, e.g. which images were left out.
    learning_curve: accuracy of the recommended one by the number of photographs.
    seed:           of the parts and the folds.
    """

    source: str
    images: int
    separate: int
    classes: tuple[str, ...]
    folds: int
    repeats: int
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()
    learning_curve: LearningCurve | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        ordered = sorted(self.candidates, key=lambda candidate: (-candidate.accuracy, candidate.log_loss))
        object.__setattr__(self, "candidates", tuple(ordered))

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Comparison on {self.source}: {len(self.candidates)} candidates, take {self.recommended.name}>"

    @property
    def best(self) -> Candidate:
        """The most accurate one."""
        return self.candidates[0]

    @cached_property
    def against_best(self) -> tuple[Paired, ...]:
        """How each of the others compares with the most accurate, in order, with the Holm-Bonferroni correction."""
        pairs = [corrected_t_test(self.best.scores, other.scores, 1 / self.folds) for other in self.candidates[1:]]
        return tuple(holm_bonferroni(pairs))

    @property
    def recommended(self) -> Candidate:
        """The one to take, by the rule above."""
        others = zip(self.candidates[1:], self.against_best, strict=True)
        near = [self.best, *(candidate for candidate, pair in others if _is_near(pair))]
        fastest = min(candidate.milliseconds for candidate in near)
        return next(candidate for candidate in near if candidate.milliseconds <= NEARLY_AS_FAST * fastest)

    def interval(self, candidate: Candidate) -> tuple[float, float]:
        """Return the 95 % interval of a candidate's accuracy: Wilson's, of the separate images."""
        return wilson(round(candidate.accuracy * self.separate), self.separate)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        pairs = [None, *(pair.to_dict() for pair in self.against_best)]
        rows = [
            {
                "name": candidate.name,
                **vars(candidate),
                "scores": list(candidate.scores),
                "accuracy_interval": list(self.interval(candidate)),
                "against_best": pair,
            }
            for candidate, pair in zip(self.candidates, pairs, strict=True)
        ]
        return {
            **{name: getattr(self, name) for name in ("source", "images", "separate", "folds", "repeats", "seed")},
            "classes": list(self.classes),
            "notes": list(self.notes),
            "candidates": rows,
            "recommended": self.recommended.name,
            "recommendation": self.recommendation(),
            "learning_curve": self.learning_curve.to_dict() if self.learning_curve else None,
        }

    def text(self) -> str:
        """Return the comparison as lines for the terminal."""
        lines = [self.about(), *(f"Note: {note}" for note in self.notes), "", *table(self.rows()), ""]
        curve = ["", self.learning_curve.text()] if self.learning_curve else []
        return "\n".join([*lines, self.recommendation(), *curve])

    def about(self) -> str:
        """Return what was measured, in one sentence."""
        separate = "" if self.separate == self.images else f" ({self.separate:,} if duplicates and groups count once)"
        return (
            f"Linear heads on frozen features, {self.images:,} images{separate} of {len(self.classes)} classes, "
            f"{self.folds}-fold cross-validation, {_times(self.repeats)}."
        )

    def rows(self) -> list[list[str]]:
        """Return the table's cells, the first row its titles."""
        pairs = ["the best", *map(_against, self.against_best)]
        titles = ["", "accuracy", "95 %", "log loss", "ms per photo", "MB", "against the best, in points"]
        return [titles, *([*self._cells(one), pair] for one, pair in zip(self.candidates, pairs, strict=True))]

    def _cells(self, candidate: Candidate) -> list[str]:
        low, high = map(percent, self.interval(candidate))
        return [
            candidate.name,
            f"{percent(candidate.accuracy)} %",
            f"{low}{DASH}{high}",
            f"{candidate.log_loss:.3f}",
            f"{candidate.milliseconds:.3g}",
            f"{candidate.megabytes:.3g}",
        ]

    def recommendation(self) -> str:
        """Return which one to take and why, in a few sentences."""
        if len(self.candidates) == 1:
            return "There is only one candidate; name more with --backbones or --cuts to compare."
        undecided = [
            candidate
            for candidate, pair in zip(self.candidates[1:], self.against_best, strict=True)
            if pair.outcome == "undecided"
        ]
        alike = [candidate.name for candidate in undecided if candidate is not self.recommended]
        sentences = [f"Take {self.recommended.name}.", *self._reasons(undecided)]
        if alike:
            sentences.append(f"With this many images, these may be as good as {self.best.name}: {', '.join(alike)}.")
        return " ".join(sentences)

    def _reasons(self, undecided: Sequence[Candidate]) -> list[str]:
        take = self.recommended
        if take is not self.best:
            behind = 100 * (self.best.accuracy - take.accuracy)
            better = f"{behind:.1f} points better" if behind >= 0.05 else "as accurate to a tenth of a point"
            return [
                f"{self.best.name} is {better}, which may be chance with this many images, "
                f"and takes {self.best.milliseconds / take.milliseconds:.1f} times as long per photo."
            ]
        faster = [one for one in undecided if NEARLY_AS_FAST * one.milliseconds < take.milliseconds]
        if not undecided:
            return ["It is more accurate than each of the others."]
        return [
            f"{one.name} is {100 * (take.accuracy - one.accuracy):.1f} points worse and "
            f"{take.milliseconds / one.milliseconds:.1f} times as fast."
            for one in faster
        ]


def _is_near(pair: Paired) -> bool:
    """Return whether a candidate is no more than a standard error, a quarter of the interval's width, behind."""
    return pair.outcome == "undecided" and -pair.difference <= (pair.high - pair.low) / 4


def _against(pair: Paired) -> str:
    difference, low, high = (points(value) for value in (pair.difference, pair.low, pair.high))
    return f"{difference} ({low} to {high}) {pair.outcome}"


def _times(repeats: int) -> str:
    return "once" if repeats == 1 else f"{repeats} times"
