"""Photographs copied into a folder for each label: safe names, nothing replaced, and a run that can go on."""

import csv
import dataclasses
import hashlib
from pathlib import PureWindowsPath

import pytest
from tests.conftest import write_photo

from regraft.cli import main
from regraft.core.errors import StoreError, UsageError
from regraft.data.index import Index
from regraft.data.read import read_inputs
from regraft.model import sorting
from regraft.model.predict import Prediction

CLASSES = ("cat", "dog")


def photographs(folder, count=4):
    """An index of photographs, and predictions: cat 0.9, dog 0.9, cat 0.6, unknown, …"""
    paths = [
        write_photo(folder / f"{number % 2}" / f"{number // 2}.png", (90, 9, 9), number) for number in range(count)
    ]
    index = read_inputs([*paths, folder / "gone.jpg"])
    kinds = [("cat", 0.9, 0), ("dog", 0.9, 0), ("cat", 0.6, 0), ("dog", 1.0, 9)]
    made = [
        Prediction(path=row.path, status="ok", ranked=((label, part),), novelty=novelty, limit=5)
        for row, (label, part, novelty) in zip(index, kinds * count, strict=False)
    ][:count]
    return index, [*made, Prediction(path=index.rows[-1].path, status="broken", error="missing")]


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def lines(folder):
    with (folder / sorting.PLAN).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_photograph_is_copied_into_the_folder_of_its_label_and_stays_where_it_was(tmp_path):
    index, made = photographs(tmp_path / "new")
    before = {path: path.read_bytes() for path in (tmp_path / "new").rglob("*.png")}
    sorting.sort_into(tmp_path / "out", index, made, CLASSES, 0.8)
    assert files_in(tmp_path / "out") == ["_unknown/1.png", "_unsure/1.png", "cat/0.png", "dog/0.png", "sorted.csv"]
    assert {path: path.read_bytes() for path in (tmp_path / "new").rglob("*.png")} == before
    for line, row in zip(lines(tmp_path / "out"), index, strict=True):
        assert line["path"] == row.path
        if line["file"]:
            content = (tmp_path / "out" / line["file"]).read_bytes()
            assert content == row.location.read() and line["id"] == hashlib.sha256(content).hexdigest()
    assert [line["status"] for line in lines(tmp_path / "out")] == ["ok"] * 4 + ["broken"]


def test_equal_names_are_told_apart_and_equal_pictures_are_copied_once(tmp_path):
    paths = [
        write_photo(tmp_path / folder / name, (9, 9, 9), seed)
        for folder, name, seed in [
            ("a", "x.png", 1),
            ("b", "X.png", 2),
            ("c", "x.png", 1),
            ("d", "y.png", 3),
            ("e", "y.png", 3),
        ]
    ]
    index = read_inputs(paths)
    made = [Prediction(path=row.path, status="ok", ranked=(("cat", 1.0),)) for row in index]
    sorting.sort_into(tmp_path / "out", index, made, CLASSES, 0.8)
    ids = [row.id[:12] for row in index]
    assert files_in(tmp_path / "out") == sorted(
        [f"cat/x-{ids[0]}.png", f"cat/X-{ids[1]}.png", "cat/y.png", "sorted.csv"]
    )


def test_the_same_again_and_after_a_kill_copies_what_is_missing_and_touches_nothing_else(tmp_path):
    index, made = photographs(tmp_path / "new")
    out = tmp_path / "out"
    sorting.sort_into(out, index, made, CLASSES, 0.8)
    (out / "dog" / "0.png").unlink()  # as if it had been killed before
    stamp = (out / "cat" / "0.png").stat().st_mtime_ns
    sorting.sort_into(out, index, made, CLASSES, 0.8)
    assert (out / "dog" / "0.png").exists() and (out / "cat" / "0.png").stat().st_mtime_ns == stamp
    more, answers = photographs(tmp_path / "new", 6)  # two have come
    sorting.sort_into(out, more, answers, CLASSES, 0.8)
    assert "cat/2.png" in files_in(out)


def test_another_sorting_into_the_same_folder_is_refused_and_nothing_is_copied(tmp_path):
    index, made = photographs(tmp_path / "new")
    sorting.sort_into(tmp_path / "out", index, made, CLASSES, 0.8)
    before = files_in(tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds another sorting, in which there is _unsure/1\.png"):
        sorting.sort_into(tmp_path / "out", index, made, CLASSES, 0.5)
    assert files_in(tmp_path / "out") == before


def test_foreign_files_and_folders_stay_as_they_are(tmp_path):
    index, made = photographs(tmp_path / "new")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    for target in (foreign, foreign / "letter.txt", tmp_path / "new"):
        with pytest.raises(UsageError):
            sorting.sort_into(target, index, made, CLASSES, 0.8)
    (foreign / "sorted.csv").write_text("mine\n")
    with pytest.raises(UsageError, match=r"sorted\.csv was not written by regraft"):
        sorting.sort_into(foreign, index, made, CLASSES, 0.8)
    out = tmp_path / "out"
    sorting.sort_into(out, index, made, CLASSES, 0.8)
    (out / "cat" / "0.png").write_bytes(b"changed by hand")
    (out / "dog" / "0.png").unlink()
    with pytest.raises(UsageError, match=r"cat/0\.png already exists and is not a copy"):
        sorting.sort_into(out, index, made, CLASSES, 0.8)
    assert (out / "cat" / "0.png").read_bytes() == b"changed by hand" and not (out / "dog" / "0.png").exists()


@pytest.mark.parametrize(
    "label",
    [
        "a/b",
        "..",
        ".",
        "",
        "/etc",
        "C:\\x",
        "con",
        "NUL.txt",
        "_unsure",
        "_UNKNOWN",
        "sorted.csv",
        " x. ",
        "é" * 300,
        "\x00\n",
        "=1+1",
        "a:b",
    ],
)
def test_a_label_that_is_no_valid_name_has_a_folder_all_the_same(label, tmp_path):
    index, made = photographs(tmp_path / "new", 2)
    made = [dataclasses.replace(item, ranked=((label, 1.0),), novelty=None) for item in made[:2]]
    index = Index(index.rows[:2])
    sorting.sort_into(tmp_path / "out", index, made, ("a_b", label), 0.8)
    names = {name.partition("/")[0] for name in files_in(tmp_path / "out")} - {"sorted.csv"}
    assert len(names) == 1 and len(list(tmp_path.iterdir())) == 2
    (name,) = names
    assert not PureWindowsPath(name).is_reserved() and name.casefold() not in ("_unsure", "_unknown", "a_b")
    assert len(name) <= 120 and not name.startswith(".") and name == name.rstrip(". ")
    sorting.sort_into(tmp_path / "out", index, made, ("a_b", label), 0.8)  # it is known again


def test_a_photograph_that_changes_or_goes_meanwhile_is_not_copied_under_its_old_answer(tmp_path):
    index, made = photographs(tmp_path / "new")
    (tmp_path / "new" / "0" / "0.png").write_bytes(b"another picture")
    with pytest.raises(StoreError, match="was changed while it was sorted"):
        sorting.sort_into(tmp_path / "out", index, made, CLASSES, 0.8)
    (tmp_path / "new" / "0" / "0.png").unlink()
    with pytest.raises(StoreError, match="Can't read"):
        sorting.sort_into(tmp_path / "other", index, made, CLASSES, 0.8)


def test_a_folder_inside_the_photographs_is_refused_before_a_model_is_opened(tmp_path, capsys):
    photographs(tmp_path / "new")
    assert main(["predict", "no-model", str(tmp_path / "new"), "--sort-into", str(tmp_path / "new" / "sorted")]) == 2
    assert "is inside" in capsys.readouterr().err
