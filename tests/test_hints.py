"""Errors that a beginner makes, each answered by one line that says what to do."""

from __future__ import annotations

import csv
import shlex

import pytest
from PIL import Image

from regraft import cli
from regraft.model.predict import Prediction, write_csv

DICOM = b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what beginners have; "model" is as much of a model as its name."""
    folder = tmp_path_factory.mktemp("beginner")
    for name in ("photos/cat", "photos/dog", "my photos/cat", "one/ants", "flat", "model", "scans", "flat scans"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        for label in ("photos/cat", "photos/dog", "one/ants"):
            Image.new("RGB", (20, 20), (number, ord(label[-1]), 9)).save(folder / label / f"{number}.png")
        for label in ("cat", "dog"):
            Image.new("RGB", (20, 20), (number, ord(label[0]), 9)).save(folder / "flat" / f"{label}.{number}.png")
    for part, data in (("train", None), ("test", DICOM)):
        for label in ("cat", "dog"):
            (folder / "scans" / part / label).mkdir(parents=True)
            for number in range(40 if part == "train" else 1):
                path = folder / "scans" / part / label / f"{number}.{'dcm' if data else 'png'}"
                path.write_bytes(data) if data else Image.new("RGB", (9, 9), (number, ord(label[0]), 7)).save(path)
    (folder / "flat scans" / "1.dcm").write_bytes(DICOM)
    (folder / "model" / "model.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        ("evaluate photos model", 4, "The model comes first: `regraft evaluate model photos`."),
        ("predict photos model --top 2", 4, "The model comes first: `regraft predict model photos --top 2`."),
        ("train my photos -o m", 2, 'More words than expected: photos. A path with spaces needs quotes: "my photos".'),
        ("train his photos -o m", 2, "More words than expected: photos. A path with spaces needs quotes;"),
        ("train photos/cat/1.png -o m", 3, "photos/cat/1.png is a single picture. Expected one folder per class"),
        ("train flat -o m", 3, "labels are in the files' names (cat, dog), add --label-from '{label}.#.*'."),
        ("train one -o m", 3, "one has one class only (ants); a classifier needs two or more. Add a folder"),
        ("train scans -o m", 3, "The test part of scans has no usable image, so nothing could be measured:"),
        ("train photos/*.png -o m", 3, "'photos/*.png' is taken as the name of a file; leave out its quotes"),
        ("train", 2, "Say where the photographs are, and where the model goes: `regraft train PHOTOS -o MODEL`."),
        ("train photos", 2, "Say where the model goes, a new folder: `regraft train photos -o MODEL`."),
        ("extract photos", 2, "`regraft extract` needs -o or --output: The .npz or .parquet file to write;"),
        (
            "tune photos -o",
            2,
            "`regraft tune` needs a value after -o: Folder for the model. See `regraft tune --help`.",
        ),
        ("inspect", 2, "`regraft inspect` needs SOURCE: A folder of class folders,"),
        ("inspect 'flat scans'", 3, "DICOM is not read; convert it to JPEG or PNG."),
    ],
)
def test_the_last_line_on_stderr_says_what_to_do(folder, monkeypatch, capsys, words, code, hint):

    monkeypatch.chdir(folder)
    plain = ["--weights", "random", "--engine", "torch"] if words.startswith("train ") else []
    assert cli.main([*shlex.split(words), *plain]) == code
    assert hint in capsys.readouterr().err


def test_an_error_that_has_nothing_to_do_with_the_words_has_no_hint(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert cli.main(["backbones", "nothing*"]) == 2
    assert "quotes" not in capsys.readouterr().err


def test_names_of_files_and_classes_never_steer_the_terminal(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    evil = "\x1b[2J\u202e\u200f"
    for label in ("cat", "dog"):
        (folder / "evil" / f"{label}{evil}").mkdir(parents=True)
        Image.new("RGB", (9, 9), (ord(label[0]), 1, 1)).save(folder / "evil" / f"{label}{evil}" / f"{evil}.png")
        (folder / "evil" / f"{label}{evil}" / f"broken{evil}.jpg").write_bytes(b"")
    for words in (
        ["inspect", "evil"],
        ["inspect", "evil", "--json"],
        ["train", "evil", "-o", f"m{evil}"],
        ["train", evil],
    ):
        cli.main(words)
        shown = capsys.readouterr()
        assert all(character.isprintable() or character == "\n" for character in shown.out + shown.err)


def test_formulas_in_a_csv_of_predictions_are_left_on_request_only(tmp_path):
    predictions = [Prediction(path="=1+1.jpg", status="ok", ranked=(("@home", 0.75), ("-3", 0.25)))]
    for formulas, cells in ((False, ["'=1+1.jpg", "ok", "", "'@home", "75", "-3", "25"]), (True, None)):
        write_csv(predictions, tmp_path / "p.csv", formulas=formulas)
        line = list(csv.reader((tmp_path / "p.csv").read_text().splitlines()))[1]
        assert line == (cells or ["=1+1.jpg", "ok", "", "@home", "75", "-3", "25"])
