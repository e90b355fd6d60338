from __future__ import annotations

import base64
import dataclasses
import io
import re
from functools import cache
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from tests.report.browser import Reader

from regraft.evaluation.multiclass import evaluate
from regraft.evaluation.multilabel import evaluate as evaluate_multilabel
from regraft.evaluation.ranking import curves
from regraft.report.evaluation_page import Answer, LeftOut, Page, Phase, render_page
from regraft.report.grids import Tile
from regraft.report.pages import thumbnail

DASH = "\N{EN DASH}"


def evaluation(n_classes=3, n=300, classes=None):
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + 2 * np.eye(n_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return evaluate(probabilities, labels, classes or [f"class {code}" for code in range(n_classes)])


def page(measures=None, **more):
    return Page(title="Birds", evaluation=measures or evaluation(), part="test part", **more)


def history(epochs):
    return [
        {"epoch": epoch, "part": part, "loss": 1 / epoch, "accuracy": 0.5, "learning_rate": 0.1, "seconds": 1.0}
        for epoch in range(1, epochs + 1)
        for part in ("train", "validation")
    ]


def full_page():
    photo = thumbnail(Image.new("RGB", (400, 200), "red"))
    return page(
        notes=["Evaluated on images the model was trained on."],
        recipe={"Backbone": "efficientnet_lite0", "Seed": "0"},
        counts={"train": {"class 0": 1200, "class 1": 34}, "test": {"class 0": 56}},
        history=history(5),
        phases=[
            Phase("head", 0, 0.31, 0.902, kept=False),
            Phase("tail", 12, 0.204, 0.951, kept=True, outcome="The tail is better than the head alone: +4.9."),
        ],
        inputs=[Tile(np.full((300, 200, 3), 90, np.uint8), "class 0"), Tile(np.zeros((8, 8, 3), np.uint8), "view 1")],
        answers=[
            Answer("a/5.jpg", photo, "class 2", "class 2", 0.991),
            Answer("a/6.jpg", photo, "class 2", "class 0", 0.61),
            Answer("a/7.jpg", None, "class 1", "class 1", 0.5),
        ],
        mistakes=[
            Answer("a/1.jpg", photo, "class 0", "class 1", 0.987),
            Answer("2.jpg", None, "class 1", "class 2", 0.5),
        ],
        broken=[LeftOut("b/cut.jpg", "truncated")],
        ignored=[LeftOut(f"c/{number}.txt", "not an image") for number in range(60)],
    )


@cache
def full_html():
    return render_page(full_page())


def test_the_headline_has_the_accuracy_a_sentence_the_interval_and_the_part():
    predicted, labels = [0] * 960 + [1] * 40, [0] * 950 + [1] * 50
    measures = evaluate(np.eye(2)[predicted], labels, ["a", "b"])  # 990 of 1,000 right; Wilson: 0.98170 to 0.99456
    text = Reader(render_page(page(measures))).text
    assert "99.0 %" in text
    assert '990 of 1,000 right; the only mistakes are "b" taken for "a" (10 times).' in text
    assert "classified correctly, here of the test part." in text
    assert "between 98.2 % and 99.5 %" in text
    assert "Always naming the class with the most images would be right for 95.0 %" in text


@pytest.mark.parametrize("n_classes", [2, 3, 30, 50])
def test_every_class_has_its_row_of_numbers(n_classes):
    measures = evaluation(n_classes)
    reader = Reader(render_page(page(measures)))
    for name, scores in measures.per_class.items():
        at = reader.cells.index(name)
        low, high = scores["recall_interval"]
        assert reader.cells[at + 1 : at + 6] == [
            str(scores["n"]),
            f"{100 * scores['precision']:.1f}",
            f"{100 * scores['recall']:.1f}",
            f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}",
            f"{100 * scores['f1']:.1f}",
        ]


@pytest.mark.parametrize(("n_classes", "readable"), [(2, True), (6, True), (30, True), (31, False)])
def test_the_matrix_is_shown_while_it_can_be_read_and_the_worst_pairs_are_listed_always(n_classes, readable):
    measures = evaluation(n_classes)
    reader = Reader(render_page(page(measures)))
    counts = np.array(measures.confusion)
    assert ("true \\ predicted" in reader.cells) == readable
    if readable:
        at = reader.cells.index("true \\ predicted")
        rows = np.array(reader.cells[at : at + (n_classes + 1) ** 2]).reshape(n_classes + 1, n_classes + 1)
        assert rows[0, 1:].tolist() == rows[1:, 0].tolist() == list(measures.classes)
        assert rows[1:, 1:].tolist() == [[str(count) if count else "" for count in row] for row in counts]
    counts = counts * ~np.eye(n_classes, dtype=bool)
    true, predicted = np.unravel_index(counts.argmax(), counts.shape)
    share = counts.max() / sum(measures.confusion[true])
    pairs = reader.cells[reader.cells.index("Images of") + 4 :]
    assert pairs[:4] == [
        measures.classes[true], measures.classes[predicted], str(counts.max()), f"{100 * share:.1f}",
    ]  # fmt: skip


def test_a_number_of_the_matrix_leads_to_its_pictures_and_one_without_leads_nowhere():
    measures = evaluation(2)
    wrong = [Answer(f"{number}.jpg", None, "class 0", "class 1", 0.9) for number in range(3)]
    reader = Reader(render_page(page(measures, cells={(0, 1): wrong})))
    (link,) = [link for link in reader.all("a") if link["href"].startswith("#cell")]
    assert link["href"] == "#cell-0-1"
    many = measures.confusion[0][1]
    assert link["aria-label"] == f"{many} images of class 0, predicted as class 1: show pictures"
    assert f"Images of class 0 , predicted as class 1 3 of {many}" in reader.text.replace("class 0,", "class 0 ,")
    assert [section["id"] for section in reader.all("section") if section.get("class") == "cell"] == ["cell-0-1"]


def test_a_sample_that_holds_all_is_not_called_a_sample():
    measures = evaluate(np.eye(2)[[0, 1]], [0, 1], ["a", "b"])
    answers = [Answer("1.jpg", None, "a", "a", 1.0), Answer("2.jpg", None, "b", "b", 1.0)]
    text = Reader(render_page(page(measures, answers=answers))).text
    assert "All predictions 2 of 2, none of them wrong" in text and "at random" not in text


def test_a_page_with_everything_shows_everything():
    reader = Reader(full_html())
    for words in (
        "Evaluated on images the model was trained on.",
        "Backbone efficientnet_lite0",
        "predicted class 1, 98.7 % labelled class 0 a/1.jpg",
        "no picture",
        "b/cut.jpg truncated",
        "Broken files 1",
        "Ignored files 60",
        "c/49.txt",
        "and 10 more",
        "Predictions drawn at random 3 of 300, 1 of them wrong",
        "predicted class 2, 99.1 % a/5.jpg",
        "predicted class 0, 61.0 % labelled class 2 a/6.jpg",
        "Still improving: the validation loss fell from 0.250 to 0.200 over the last epoch",
        "The tail is better than the head alone: +4.9.",
        "What the network sees",
        "class 0 view 1",
        "Balanced accuracy",
        "Calibration error",
    ):
        assert words in reader.text
    assert "c/50.txt" not in reader.text
    kinds = [picture.split(";")[0] for picture in reader.pictures()]
    # curves, counts, confidence; one mistake, two answers, two inputs
    assert sorted(kinds) == ["data:image/svg+xml"] * 3 + ["data:image/webp"] * 5


def test_a_page_with_the_least_leaves_the_rest_out():
    measures = evaluate(np.eye(2)[[0, 1]], [0, 1], ["a", "b"])
    reader = Reader(render_page(page(measures)))
    for words in (
        *("mistakes", "How it was made", "Broken", "Ignored", "Images of each class", "NaN", "None"),
        *("at random", "network sees", "Phase", "improving", "Top-5"),
    ):
        assert words not in reader.text
    assert "No image was taken for another class." in reader.text
    assert "fitted in one step" in reader.text
    assert reader.all("h2")


def test_only_the_wrong_answers_are_marked_as_such():
    items = [item.get("class") for item in Reader(full_html()).all("li")]
    assert items == ["wrong", "wrong", None, "wrong", None, None, None]  # mistakes, answers, inputs


def test_each_phase_has_its_row_and_says_whether_it_was_kept_and_helped():
    cells = Reader(full_html()).cells
    at = cells.index("head")
    assert cells[at : at + 10] == [
        *("head", DASH, "0.310", "90.2", DASH),
        *("tail (kept)", "12", "0.204", "95.1", "The tail is better than the head alone: +4.9."),
    ]


def test_every_further_measure_stands_with_its_value_and_meaning():
    measures = evaluation(8)
    reader = Reader(render_page(page(measures)))
    for name, value in [
        ("Log loss", f"{measures.log_loss:.3f}"),
        ("Balanced accuracy", f"{100 * measures.balanced_accuracy:.1f} %"),
        ("Top-5 accuracy", f"{100 * measures.top_5_accuracy:.1f} %"),
        ("Cohen's kappa", f"{measures.cohen_kappa:.3f}"),
        ("Matthews correlation", f"{measures.matthews:.3f}"),
        ("Brier score", f"{measures.brier:.3f}"),
        ("Calibration error", f"{100 * measures.calibration_error:.1f} %"),
    ]:
        at = reader.cells.index(name)
        assert reader.cells[at + 1] == value
        assert reader.cells[at + 2]
    assert reader.cells.count("ROC AUC") == 1  # the title of each class against the rest
    assert "ROC AUC" in Reader(render_page(page(evaluation(2)))).cells


def test_measures_that_an_older_model_lacks_are_left_out():
    measures = dataclasses.replace(
        evaluation(), balanced_accuracy=None, cohen_kappa=None, matthews=None, brier=None, calibration_error=None
    )
    cells = Reader(render_page(page(measures))).cells
    assert "Log loss" in cells and "Balanced accuracy" not in cells and "Brier score" not in cells


def test_where_images_have_any_number_of_labels_the_page_is_of_labels():
    rng = np.random.default_rng(0)
    probabilities = rng.random((200, 3))
    truth = (rng.random((200, 3)) < probabilities) * [1, 1, 0]
    measures = evaluate_multilabel(probabilities, truth, ["beach", "<tree>", "nowhere"], [0.5, 0.25, 0.99])
    labels = dataclasses.replace(
        full_page(), evaluation=measures, answers=[Answer("a.jpg", None, "beach, <tree>", "beach", None)], mistakes=()
    )
    reader = Reader(render_page(labels))
    assert measures.summary() in reader.text
    assert "share of images that have all labels right, here of the test part. With 95 % confidence" in reader.text
    assert f"{100 * measures.exact_match:.1f} %" in reader.text
    assert f"Mean average precision {100 * measures.mean_average_precision:.1f} %." in reader.text
    scores = measures.per_label["<tree>"]
    at = reader.cells.index("<tree>")
    assert [reader.cells[at + offset] for offset in (1, 3, 6, 7)] == [
        str(scores["n"]), f"{100 * scores['recall']:.1f}", f"{100 * scores['average_precision']:.1f}", "0.250",
    ]  # fmt: skip
    nowhere = reader.cells.index("nowhere")
    assert [reader.cells[nowhere + offset] for offset in (1, 3, 4, 6)] == ["0", DASH, DASH, DASH]
    assert "predicted beach labelled beach, <tree> a.jpg" in reader.text
    assert "Confusion" not in reader.text
    assert "Still improving" in reader.text


def test_one_epoch_is_one_step():
    assert "fitted in one step" in Reader(render_page(page(history=history(1)))).text


def test_the_file_needs_nothing_beside_it_and_runs_nothing():
    html = full_html()
    reader = Reader(html)
    assert not re.search(r"https?:|//[a-z]", html.split("<body>")[0])
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "form"})
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert all(attributes[name].startswith("data:image/") for name in ("src", "srcset") if name in attributes)
        assert attributes.get("href", "#").startswith("#")
    outside = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", html)
    assert "http" not in outside
    assert "url(" not in outside


def test_the_pictures_in_the_page_are_whole():
    for address in Reader(full_html()).pictures():
        kind, data = address.split(";base64,")
        data = base64.b64decode(data, validate=True)
        if kind == "data:image/svg+xml":
            assert ElementTree.fromstring(data).tag.endswith("svg")
        else:
            assert Image.open(io.BytesIO(data)).size in [(400, 200), (200, 300), (8, 8)]


def test_a_png_is_shown_as_a_png():
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    html = render_page(page(mistakes=[Answer("x", data.getvalue(), "class 0", "class 1", 0.9)]))
    assert any(picture.startswith("data:image/png;") for picture in Reader(html).pictures())


def test_the_page_can_be_heard_and_reached_by_keys():
    reader = Reader(full_html())
    assert reader.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in reader.all("img"))
    assert all(header["scope"] in ("row", "col") for header in reader.all("th"))
    assert len(reader.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["aria-labelledby"] for _, attributes in reader.tags if "aria-labelledby" in attributes} <= set(
        ids
    )


EVIL = '<script>alert("1")</script>'


@pytest.mark.parametrize("name", [EVIL, '" onerror="x', "{{ 7 * 7 }}", "猫 é ‮gpj", "$x^{$", "x" * 5000, "&amp;"])
def test_a_name_is_text_wherever_it_stands(name):
    measures = evaluation(2, classes=[name, "other"])
    html = render_page(
        Page(
            title=name,
            evaluation=measures,
            part=name,
            notes=[name],
            recipe={name: name},
            counts={name: {name: 1}},
            phases=[Phase(name, 3, 0.1, 0.9, kept=True, outcome=name)],
            inputs=[Tile(np.zeros((9, 9, 3), np.uint8), name)],
            answers=[Answer(name, None, name, name, 0.9)],
            mistakes=[Answer(name, thumbnail(Image.new("RGB", (9, 9))), "other", name, 0.9)],
            broken=[LeftOut(name, name)],
            ignored=[LeftOut(name, name)],
        )
    )
    reader = Reader(html)
    assert reader.all("script") == []
    assert not any("onerror" in attributes for _, attributes in reader.tags)
    # besides the sentence at the top: title, h1, part, note, recipe 2, mistake 2, answer 2, class rows 2, two pairs of
    # classes, the matrix's row and column, phase 2, input, broken 2, ignored 2
    assert "".join(reader.words).count(name) - measures.summary().count(name) == 23


def test_a_file_name_that_is_not_valid_text_does_not_stop_the_report():
    html = render_page(page(broken=[LeftOut("caf\udce9.jpg", "truncated")]))
    assert "caf?.jpg" in html
    html.encode("utf-8")


def test_the_same_page_gives_the_same_text():
    assert render_page(full_page()) == full_html()


def test_the_page_cannot_be_changed_under_way():
    with pytest.raises(dataclasses.FrozenInstanceError):
        full_page().title = "other"


def test_the_page_shows_confidence_against_accuracy_and_the_curves_of_each_class():
    rng = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[rng.integers(0, 3, 50)]
    rankings = {f"class {at}": curves(rng.random(50), truth[:, at]) for at in range(3)}
    html = render_page(page(rankings=rankings))
    text = Reader(html).text
    assert "Each class against the rest" in text
    assert "The chart shows all of them" in text
    assert "Where probabilities mean what they say" in text
    assert html.count("data:image/svg") >= 2
    without = Reader(render_page(page())).text
    assert "Average precision" in without
    assert "The chart shows" not in without


def test_of_images_with_several_labels_each_label_is_ranked():
    truth = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    measures = evaluate_multilabel(np.array([[0.9, 0.2], [0.3, 0.6], [0.4, 0.9], [0.1, 0.3]]), truth, ["sea", "sky"])
    assert "Each label against the rest" in Reader(render_page(page(measures))).text
