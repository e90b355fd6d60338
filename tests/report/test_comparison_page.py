from __future__ import annotations

from tests.report.browser import Reader

from regraft.evaluation.comparison import Candidate, Comparison
from regraft.evaluation.learning_curve import LearningCurve
from regraft.evaluation.significance import corrected_t_test
from regraft.report.comparison_page import render

GAIN = corrected_t_test([0.8, 0.81], [0.9, 0.91], 0.2)
CURVE = LearningCurve(
    sizes=(10, 20, 40),
    accuracy=(0.7, 0.8, 0.9),
    low=(0.6, 0.7, 0.8),
    high=(0.8, 0.9, 0.95),
    recalls={"a": (0.7, 0.8, 0.9), "<b>": (0.6, 0.7, 0.8)},
    halved=20,
    gain=GAIN,
    gains={"a": GAIN},
)


def comparison(*names, **more):
    candidates = [
        Candidate(
            backbone=name,
            cut="pooled",
            width=8,
            scores=(0.9 - at / 100, 0.92 - at / 90),
            accuracy=0.91 - at / 95,
            log_loss=0.3,
            milliseconds=5 + at,
            megabytes=12.3,
        )
        for at, name in enumerate(names)
    ]
    about = {"source": "photos", "images": 400, "separate": 300, "classes": ("a", "<b>"), "folds": 5, "repeats": 2}
    return Comparison(candidates=tuple(candidates), **about, **more)


def test_the_page_has_the_table_the_curve_and_names_as_they_are():
    page = Reader(render(comparison("a<b", "large", notes=("left & out",), learning_curve=CURVE)))
    assert {"a<b", "large"} <= set(page.cells)
    assert "left & out" in page.text
    assert "Would more photographs help? Yes" in page.text
    assert [picture.split(";")[0] for picture in page.pictures()] == ["data:image/svg+xml"]


def test_without_a_learning_curve_there_is_no_picture():
    assert Reader(render(comparison("only"))).pictures() == []
