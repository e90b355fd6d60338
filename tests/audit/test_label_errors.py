"""Likely label errors against the paper's equation written out, and cleanlab."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.audit.label_errors import MARGIN, contradicted


def predictions(n, classes, seed):
    """Probabilities that are right more often than not, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    logits = rng.normal(size=(n, classes)) * 1.5 + 1.5 * np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_likely_label_errors_are_the_off_diagonal_of_the_confident_joint(classes, seed):
    """Equation 1 of the paper as it stands there, its threshold lowered to the label's own probability and MARGIN."""
    probabilities, labels = predictions(200, classes, seed)
    expected = {}
    thresholds = [
        sum(p[c] for p, label in zip(probabilities, labels, strict=True) if label == c) / list(labels).count(c)
        for c in range(classes)
    ]
    for number, (p, label) in enumerate(zip(probabilities, labels, strict=True)):
        confident = [c for c in range(classes) if p[c] >= thresholds[c] or p[c] >= p[label] + MARGIN]
        if confident and (best := max(confident, key=lambda c: p[c])) != label and p[best] > p[label]:
            expected[number] = (best, p[best] - p[label])
    rows, suggested = contradicted(probabilities, labels)
    assert dict(zip(rows, suggested, strict=True)) == {number: best for number, (best, _) in expected.items()}
    assert [expected[row][1] for row in rows] == sorted((margin for _, margin in expected.values()), reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_for_two_classes_cleanlab_finds_the_same_but_for_what_the_margin_adds(seed):
    filters = pytest.importorskip("cleanlab.filter", reason="cleanlab is not installed")
    probabilities, labels = predictions(300, 2, seed)
    expected = filters.find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    by_margin = np.max(probabilities, axis=1) - probabilities[np.arange(300), labels] >= MARGIN
    assert sorted(contradicted(probabilities, labels)[0]) == np.flatnonzero(expected | by_margin).tolist()


def test_labels_that_nothing_contradicts_are_no_errors():
    labels = np.arange(30) % 3
    rows, suggested = contradicted(0.1 + 0.7 * np.eye(3)[labels], labels)
    assert len(rows) == len(suggested) == 0
