"""Words and numbers that the evaluations of one class and of several labels have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from regraft.core.text import percent, shorten
from regraft.evaluation.metrics import Means

DASH = "\N{EN DASH}"
INDENT = 10  # of the numbers
NAME_WIDTH = 40  # of a class, in cells of the terminal
SCORES_EXPLAINED = "precision: right among those called so; recall: right among its images"


class Mistake(NamedTuple):
    """A kind of mistake, in words that need no grammar of the names in them, and how often it was made."""

    times: int
    words: str  # '"bee" taken for "ant"'


def most_frequent(mistakes: Sequence[Mistake]) -> str:
    """Return which mistakes were made most often, as a clause; of three or more equally frequent ones none is named.

    mistakes: at least one, the most frequent first.
    """
    top = [mistake for mistake in mistakes if mistake.times == mistakes[0].times]
    if len(top) > 2:
        return "no mistake is more frequent than others"
    plural = len(top) > 1 or (len(mistakes) == 1 and top[0].times > 1)
    kind = "most frequent" if len(mistakes) > len(top) else "only"
    words = " and ".join(mistake.words for mistake in top)
    times = _times(top[0].times) + (" each" if len(top) > 1 else "")
    return f"the {kind} {'mistakes are' if plural else 'mistake is'} {words} ({times})"


def quoted(name: str) -> str:
    """Return the name of a class as it stands in a sentence."""
    return f'"{shorten(name, NAME_WIDTH)}"'


def sentence_lines(sentence: str) -> list[str]:
    """Return a sentence as lines for the terminal, under the numbers of an evaluation."""
    return [f"{' ' * INDENT}{line}" for line in wrap(sentence, 80 - INDENT)]


def score_words(scores: Mapping[str, Any]) -> str:
    """Return precision, recall and F1 in percent, with a dash for what is not defined."""
    names = {"precision": "precision", "recall": "recall", "f1": "F1"}
    values = {name: DASH if scores[key] is None else f"{percent(scores[key])} %" for key, name in names.items()}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def pictures_words(pictures: int | None, n: int) -> str:
    """Return how many pictures the images show, as a clause; "" if each shows another, or it is unknown."""
    if pictures is None or pictures == n:
        return ""
    return f"{n:,} images show {pictures:,} pictures (copies, near-duplicates): the intervals count each picture once"


def means_words(means: Means, total: int, nouns: str) -> str:
    """Return over how many of `total` classes, or labels, the means are, as a clause."""
    classes, predicted = means["classes"], means["precision_classes"]
    all_or_some = (
        f"the {total:,} {nouns}" if classes == total else f"{classes:,} of {total:,} {nouns}, those with images here"
    )
    precision = f"; precision over {predicted:,} of {classes:,}, those predicted at all" if predicted < classes else ""
    return f"means over {all_or_some}{precision}"


def score_cells(scores: Mapping[str, Any]) -> list[str]:
    """Return precision, recall and F1 of a class in percent, with a dash where there is nothing to divide by."""
    return [
        percent(scores["precision"]) if scores["n_predicted"] else DASH,
        percent(scores["recall"]) if scores["n"] else DASH,
        percent(scores["f1"]) if scores["n"] or scores["n_predicted"] else DASH,
    ]


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")
