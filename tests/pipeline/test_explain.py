"""Predictions with what they rest on: from Python and from the command line."""

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from tests.conftest import PLAIN, write_photo

import regraft
from regraft.cli import main
from regraft.core.errors import DataError, UnknownName, UsageError
from regraft.model import heat_map

SMALL = {"backbone": "test_resnet", "size": 64, "weights": "random", "views": 0, **PLAIN}
NO_ENGINE = ["--engine", "torch", "--precision", "float32"]


@pytest.fixture(scope="module")
def model(model_folder):
    return regraft.load(model_folder, **PLAIN)


@pytest.fixture
def new(tmp_path):
    """A folder of three new photographs and a broken one."""
    for number, colour in enumerate([(30, 60, 200), (200, 40, 40), (190, 45, 45)]):
        write_photo(tmp_path / "new" / f"{number}.png", colour, 900 + number)
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "new"


def test_the_nearest_training_images_are_named_with_their_own_label_path_and_picture(model, photos, new):
    gallery = regraft.explain(model, new)
    assert [item.label for item in gallery] == ["blue", "red", "red", ""]
    for item in gallery.predictions[:3]:
        assert len(item.nearest) == 5
        assert [each.similarity for each in item.nearest] == sorted((e.similarity for e in item.nearest), reverse=True)
        for each in item.nearest:
            content = (photos / each.path).read_bytes()
            assert each.id == hashlib.sha256(content).hexdigest()
            assert each.path.startswith(f"{each.label}/") and model.part_of(each.id) == "train"
            small = np.asarray(Image.open(io.BytesIO(each.picture)).convert("RGB"), float)
            assert (
                np.abs(small.mean((0, 1)) - np.asarray(Image.open(io.BytesIO(content)), float).mean((0, 1))).max() < 8
            )


def test_pictures_can_be_left_out_of_a_model_and_the_names_stay(model, photos, new, tmp_path):
    bare = regraft.train(photos, tmp_path / "bare", **SMALL, split="0.7/0.3", pictures="off").model
    assert [each.picture for each in bare.evidence.named] == [b""] * len(bare.evidence.named)
    nearest = regraft.explain(bare, new)[1].nearest
    assert [each[:4] for each in nearest] == [each[:4] for each in regraft.explain(model, new)[1].nearest]
    assert "photos" not in str({each.path for each in bare.evidence.named})


def test_a_model_of_before_has_a_heat_map_and_no_nearest(model, new):
    older = dataclasses.replace(model, evidence=dataclasses.replace(model.evidence, named=()))
    gallery = regraft.explain(older, new)
    assert gallery[0].nearest == ()
    assert gallery.heat_map(0).method == heat_map.ACTIVATION


def test_a_heat_map_is_of_the_predicted_label_or_of_another_that_is_asked_for(model, new):
    gallery = regraft.explain(model, new)
    assert (gallery.heat_map(1).label, gallery.heat_map(1, "blue").label) == ("red", "blue")
    with pytest.raises(DataError, match=r"broken\.png is broken"):
        gallery.heat_map(3)
    with pytest.raises(UnknownName, match=r"bleu.*blue"):
        gallery.heat_map(0, "bleu")
    with pytest.raises(UnknownName):
        regraft.explain(model, new, label="bleu")


def test_json_and_csv_carry_the_nearest(model_folder, new, tmp_path, capsys):
    words = ["predict", str(model_folder), str(new), "--explain", *NO_ENGINE]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main([*words, "-o", str(tmp_path / "rows.csv")]) == 0
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert "nearest" not in printed[3] and rows[3]["nearest_1"] == ""
    for item, row in zip(printed[:3], rows, strict=False):
        for number, each in enumerate(item["nearest"], start=1):
            names = (f"nearest_{number}", f"nearest_{number}_label", f"nearest_{number}_id")
            assert [row[name] for name in names] == [each["path"], each["label"], each["id"]]
            assert float(row[f"nearest_{number}_similarity"]) == pytest.approx(each["similarity"])


def test_without_explain_nothing_is_named_and_nothing_else_changes(model_folder, new, capsys):
    assert main(["predict", str(model_folder), str(new), "--json", *NO_ENGINE]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main(["predict", str(model_folder), str(new), "--json", "--explain", *NO_ENGINE]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert [{name: item[name] for name in item if name != "nearest"} for item in explained] == plain


def pictures(page):
    return [base64.b64decode(text) for text in re.findall(r"data:image/(?:webp|jpeg);base64,([^\"]+)", page)]


def test_the_page_shows_each_photograph_its_map_and_the_nearest_and_lists_what_has_no_answer(
    model_folder, new, tmp_path
):
    page = tmp_path / "page.html"
    words = ["predict", str(model_folder), str(new), "--report", str(page), *NO_ENGINE]
    assert main(words) == 0
    text = page.read_text("utf-8")
    assert len(pictures(text)) == 3 and "4 photographs: 2 red, 1 blue, 1 broken" in text and "broken.png" in text
    assert main([*words, "--explain"]) == 2  # the page is there
    assert main([*words, "--explain", "--overwrite"]) == 0
    text = page.read_text("utf-8")
    shown = pictures(text)
    assert len(shown) == 3 * (2 + 5) and "exact" in text
    assert Image.open(io.BytesIO(shown[0])).size == Image.open(io.BytesIO(shown[1])).size


def test_a_page_is_bounded_however_many_photographs_there_are(model, photos, monkeypatch):
    from regraft.report import gallery_page

    monkeypatch.setattr(gallery_page, "SHOWN", 4)
    text = regraft.explain(model, photos).html()
    assert len(pictures(text)) == 4 * 7 and "and 32 more" in text


def test_a_foreign_page_stays_and_explanations_of_a_folder_of_results_are_refused(model_folder, new, tmp_path, capsys):
    (tmp_path / "mine.html").write_text("<html>mine")
    words = ["predict", str(model_folder), str(new), "--explain", *NO_ENGINE]
    assert main([*words, "--report", str(tmp_path / "mine.html"), "--overwrite"]) == 2
    assert (tmp_path / "mine.html").read_text() == "<html>mine"
    assert main([*words, "-o", f"{tmp_path}/out/"]) == 2
    assert "are for predictions that are printed or written to a CSV" in capsys.readouterr().err
    with pytest.raises(UsageError):
        regraft.explain(regraft.load(model_folder, **PLAIN), new, top=0)


def test_an_image_of_several_labels_has_a_map_and_no_nearest(photos, tmp_path):
    rows = [
        (path, path.parent.name if number % 2 else f"{path.parent.name};dark")
        for number, path in enumerate(sorted(photos.glob("*/*.png")))
    ]
    table = tmp_path / "labels.csv"
    table.write_text("path,labels\n" + "".join(f"{path},{labels}\n" for path, labels in rows))
    model = regraft.train(table, tmp_path / "model", **SMALL, split="0.7/0.3", outside=True).model
    gallery = regraft.explain(model, rows[0][0])
    assert gallery[0].nearest == () and gallery.heat_map(0).method == heat_map.ACTIVATION
    assert len(pictures(gallery.html())) >= 1


def test_the_mistakes_of_a_report_show_what_they_rest_on_and_the_nearest_training_images(model, tmp_path):
    others = {"blue": (200, 40, 40), "red": (30, 60, 200)}  # whose names are wrong
    paths = [write_photo(tmp_path / f"{name}.png", colour, 70) for name, colour in others.items()]
    report = regraft.evaluate(model, regraft.read(paths, ["blue", "red"]), part="all")
    mistakes = re.search(r'id="mistakes".*?</section>', report.html(), re.DOTALL)[0]
    assert len(pictures(mistakes)) == 2 * (1 + 1 + 3)
    assert "What speaks for red on" in mistakes and "most similar training images" in mistakes
