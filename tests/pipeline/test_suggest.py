"""Which photographs to label next, from Python and from the command line."""

import csv
import json
import shutil

import numpy as np
import pytest
from tests.conftest import PLAIN, write_photo

import regraft
from regraft.cli import main
from regraft.core.errors import UsageError

SMALL = {"backbone": "test_resnet", "size": 64, "weights": "random", "views": 0, **PLAIN}
NO_ENGINE = ["--engine", "torch", "--precision", "float32"]


@pytest.fixture(scope="module")
def new(photos, tmp_path_factory):
    """Photographs of clear and of mixed colours, one twice, one that was trained on, a broken file."""
    made = tmp_path_factory.mktemp("new")
    for number in range(8):
        write_photo(made / f"clear{number}.png", [(30, 60, 200), (200, 40, 40)][number % 2], 500 + number)
        write_photo(made / f"mixed{number}.png", (115, 50, 120), 600 + number)
    shutil.copy(made / "mixed0.png", made / "copy.png")
    shutil.copy(photos / "blue" / "000.png", made / "known.png")
    (made / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return made


def test_the_uncertain_are_suggested_once_each_and_nothing_that_has_a_label(model_folder, new):
    model = regraft.load(model_folder, **PLAIN)
    made = regraft.suggest(model, new, 6)
    names = [item.path.rpartition("/")[2] for item in made.predictions]
    assert len(set(names)) == 6 and sum(not name.startswith("clear") for name in names) >= 4
    assert not {"mixed0.png", "copy.png"} <= set(names)
    assert list(made.certainty) == sorted(made.certainty)
    ranked = np.array([[part for _, part in item.ranked[:2]] for item in made.predictions])
    np.testing.assert_allclose(made.certainty, ranked[:, 0] - ranked[:, 1], atol=1e-5)
    left_out = {each["path"].rpartition("/")[2]: each for each in made.to_dict()["left_out"]}
    assert left_out["known.png"]["reason"] == "has a label already"
    assert left_out["broken.png"]["status"] == "broken"
    assert "same picture as" in (left_out.get("copy.png") or left_out["mixed0.png"])["reason"]
    assert made.summary() == "6 photographs to label, of 16 without a label, 1 with a label already, 1 copies, 1 broken"


def test_all_are_suggested_where_there_are_no_more_and_none_where_all_have_labels(model_folder, new, photos):
    model = regraft.load(model_folder, **PLAIN)
    assert len(regraft.suggest(model, new, 500)) == 16
    nothing = regraft.suggest(model, photos)
    assert len(nothing) == 0 and nothing.summary().startswith("0 photographs to label, of 0 without a label, 36 with")
    assert nothing.html() and nothing.text()
    with pytest.raises(UsageError, match="--count is 0"):
        regraft.suggest(model, new, 0)


def test_the_csv_has_a_column_for_labels_is_read_when_filled_in_and_is_not_replaced_unasked(
    model_folder, new, tmp_path, capsys
):
    table, page = tmp_path / "label.csv", tmp_path / "label.html"
    words = ["suggest", str(model_folder), str(new), "-n", "4", "-o", str(table), *NO_ENGINE]
    assert main([*words, "--report", str(page), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [item["path"] for item in printed["suggestions"]]
    assert {row["label"] for row in rows} == {""}
    assert page.read_text("utf-8").count("<img") == 4 and "broken.png" in page.read_text("utf-8")
    assert main(words) == 2, "labels that were filled in are not lost"
    for row, label in zip(rows, ["blue", "red", "blue", "red"], strict=True):
        row["label"] = label
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert regraft.read(table, outside=True).class_counts == {"blue": 2, "red": 2}
    assert main([*words, "--overwrite"]) == 0
    assert "4 photographs to label" in capsys.readouterr().out


def test_images_of_several_labels_are_suggested_by_their_least_certain_label(photos, new, tmp_path):
    table = tmp_path / "labels.csv"
    lines = [
        f"{path},{path.parent.name};{'odd' if number % 2 else 'even'}"
        for number, path in enumerate(sorted(photos.glob("*/*.png")))
    ]
    table.write_text("\n".join(["path,labels", *lines]))
    model = regraft.train(table, tmp_path / "model", **SMALL, split="0.7/0.3", outside=True).model
    assert len(regraft.suggest(model, new, 3)) == 3
