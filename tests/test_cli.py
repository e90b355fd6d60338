"""The command line: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from regraft import cli
from regraft.inference.engines import openvino
from tests.conftest import PLAIN, write_photo, write_photos

# where neither the engine nor the views are the subject
FAST = ("--engine", PLAIN["engine"], "--precision", PLAIN["precision"])
BARE = (*FAST, "--views", "0", "--size", "96")
TINY = ("--size", "64", "--cut", "blocks.0")  # where an engine starts, and which is not the subject
PARTS = ("--split", "0.8/0.1/0.1")  # with few images `auto` would cross-validate


@pytest.fixture
def regraft(capsys):
    """Run a command in this process; return its exit code, stdout and stderr."""

    def run(*words):
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "model"
    assert cli.main(["-q", "train", str(photos), "-o", str(folder), *PARTS, *BARE]) == 0
    return folder


def test_the_whole_way_works_from_the_command_line(regraft, photos, tmp_path):
    code, out, err = regraft("train", photos, "-o", tmp_path / "model", "--size", 96)
    assert code == 0 and "5-fold cross-validation" in out and "The model is in" in err
    assert f"As a page: regraft report {tmp_path / 'model'} -o report.html" in err
    assert "views" in err  # there are few photographs, and it says what it makes of them
    code, out, err = regraft("evaluate", tmp_path / "model", photos, "--json", "--report", tmp_path / "report.html")
    measures = json.loads(out)
    assert code == 0 and "views" not in err
    assert measures["n"] == sum(map(sum, measures["confusion"])) == 36
    assert measures["part"] == "cross-validation" and "a model trained without it" in str(measures["notes"])
    low, high = measures["accuracy_interval"]
    assert low <= measures["accuracy"] <= high
    assert {"log_loss", "per_class"} <= set(measures)
    assert "<html" in (tmp_path / "report.html").read_text("utf-8")
    code, out, _ = regraft("predict", tmp_path / "model", photos / "red" / "000.png", "--top", 1)
    assert code == 0 and out.startswith(f"{photos}/red/000.png  red ")


def test_inspect_counts_everything_and_never_fails_over_a_broken_file(regraft, tmp_path):
    write_photos(tmp_path, per_class=3)
    shutil.copy(tmp_path / "red" / "000.png", tmp_path / "red" / "copy.png")
    shutil.copy(tmp_path / "blue" / "000.png", tmp_path / "green" / "wrong.png")
    (tmp_path / "red" / "half.png").write_bytes((tmp_path / "red" / "001.png").read_bytes()[:-800])
    (tmp_path / ".DS_Store").write_bytes(b"x")
    code, out, _ = regraft("inspect", tmp_path, "--json")
    data = json.loads(out)
    assert code == 0
    assert (data["used"], data["ignored"], data["broken"]) == (9, 3, 1)
    assert data["classes"] == {"blue": 2, "green": 3, "red": 4}
    assert (data["copies"], data["conflicts"]) == (2, 1)
    assert [item["path"] for item in data["files"]["broken"]] == ["red/half.png"]
    code, out, _ = regraft("inspect", tmp_path)
    assert code == 0 and "red/half.png" in out


def test_predictions_go_to_a_csv_with_a_row_for_every_input(regraft, model, photos, tmp_path):
    code, out, err = regraft("predict", model, photos, "-o", tmp_path / "predictions.csv", *FAST)
    assert code == 0 and out == "" and "36 rows" in err
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 37


def test_a_file_that_is_named_and_has_no_answer_ends_in_an_error_after_the_answers_of_the_others(
    regraft, model, photos, tmp_path
):
    (tmp_path / "diary.txt").write_text("May\nMonday, it rained\nTuesday\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "half.png").write_bytes((photos / "red" / "000.png").read_bytes()[:900])
    named = [tmp_path / "diary.txt", tmp_path / "gone.png"]
    code, out, err = regraft("predict", model, *named, photos / "red" / "000.png", *FAST)
    assert code == 3 and f"No answer for {named[0]}, {named[1]}:" in err
    diary, gone, red = out.splitlines()
    assert diary.endswith("diary.txt  broken: a text file, of which no line names a file that is there")
    assert gone.endswith("gone.png  broken: No such file or directory") and "red 100.0 %" in red
    assert regraft("predict", model, tmp_path / "folder", photos / "red" / "000.png", *FAST)[0] == 0


def test_a_table_of_the_users_own_is_not_replaced_by_predictions(regraft, model, photos, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.jpg,cat\n")
    code, _, err = regraft("predict", model, photos / "red" / "000.png", "-o", table, *FAST)
    assert code == 2 and "was not written by regraft" in err and table.read_text() == "path,label\na.jpg,cat\n"
    for _ in range(2):
        assert regraft("predict", model, photos / "red" / "000.png", "-o", tmp_path / "own.csv", *FAST)[0] == 0


def test_evaluating_on_what_was_trained_on_says_so(regraft, model, photos):
    code, out, _ = regraft("evaluate", model, photos, "--part", "all", *FAST)
    assert code == 0 and "were trained on" in out
    code, out, _ = regraft("evaluate", model, photos, "--part", "test", *FAST)
    assert code == 0 and "were trained on" not in out


def test_extract_writes_what_numpy_reads(regraft, photos, tmp_path):
    code, _, _ = regraft("extract", photos, "-o", tmp_path / "features.npz", *FAST)
    with np.load(tmp_path / "features.npz") as saved:
        assert code == 0
        assert saved["features"].shape == (36, 1280) and saved["features"].dtype == np.float32
        assert sorted(set(saved["labels"])) == ["blue", "green", "red"]
        assert saved["paths"][0] == "blue/000.png" and len(set(saved["ids"])) == 36


def test_the_options_of_a_head_are_set_by_their_names(regraft, photos, tmp_path):
    words = ["--head", "mlp", "--head-options.hidden", "16,8", "--head-options.dropout", "0.1", "--epochs", "1"]
    assert regraft("train", photos, "-o", tmp_path / "model", *words, *BARE)[0] == 0
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert description["head"] == {"name": "mlp", "options": {"hidden": [16, 8], "dropout": 0.1}}


def test_views_and_a_policy_are_chosen_by_their_flags(regraft, photos, tmp_path):
    words = ["--views", 1, "--augmentation", "light,rotation=30", "--size", 64, "--store", tmp_path / "store"]
    assert regraft("train", photos, "-o", tmp_path / "model", *words, *PARTS, *FAST)[0] == 0
    (shelf,) = json.loads(regraft("store", "--store", tmp_path / "store", "--json")[1])["shelves"]
    assert (shelf["images"], shelf["views"]) == (36, 30)
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert description["options"]["views"] == 1 and description["options"]["augmentation"] == "light,rotation=30"


@pytest.mark.slow
def test_a_precision_is_chosen_by_its_flag_and_int8_leaves_the_results_clean(regraft, photos, tmp_path):
    pytest.importorskip("nncf")
    if "int8" not in openvino.precisions():
        pytest.skip("OpenVINO is not installed")
    words = ["--precision", "int8", "--size", 64, "--views", 0, "--store", tmp_path / "store", "--json"]
    code, out, _ = regraft("train", photos, "-o", tmp_path / "model", *words, "--cut", "blocks.1", *PARTS)
    assert code == 0 and any("in int8 the accuracy" in note for note in json.loads(out)["notes"])
    code, out, _ = regraft("evaluate", tmp_path / "model", photos, *words[:2], *words[6:])
    assert code == 0 and json.loads(out)["n"] == 3


def test_a_disagreement_is_one_line_with_the_cut_and_the_precision(regraft, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.inference.engines.torch.fast_bfloat16", lambda: True)
    monkeypatch.setattr("regraft.inference.agreement.LEAST_COSINE", {"bfloat16": 2})
    words = ["--engine", "torch", "--precision", "bfloat16", "--cut", "blocks.2", "--store", tmp_path / "store"]
    code, out, err = regraft("extract", photos, "-o", tmp_path / "features.npz", *words)
    assert (code, out) == (2, "") and "Traceback" not in err
    assert "cut at 'blocks.2'" in err and "bfloat16 on torch" in err and "--precision float32" in err
    assert not (tmp_path / "features.npz").exists()


def test_what_is_left_out_is_named_with_its_reason(regraft, tmp_path):
    photos = write_photos(tmp_path / "photos", per_class=4)
    (photos / "red" / "bad.png").write_bytes(b"\x89PNG nothing more")
    (photos / "red" / "notes.txt").write_text("not a picture")
    code, out, err = regraft("train", photos, "-o", tmp_path / "model", "--max-broken", 0.5, *BARE)
    assert code == 0
    assert "Left out, broken: red/bad.png: " in err and "Ignored 1 file, such as red/notes.txt: not an image" in err
    assert "1 broken, 1 ignored" in out


def test_the_places_where_a_network_can_be_cut_are_listed(regraft):
    code, out, _ = regraft("backbones", "inception_v3", "--cuts", "--json")
    cuts = json.loads(out)
    assert code == 0 and "mixed7" in cuts["Mixed_6e"]["names"]
    first, *_, last = cuts
    assert (first, last) == ("input", "pooled")


def test_a_fault_of_ours_is_one_line_too(regraft, monkeypatch, photos):
    monkeypatch.setattr("regraft.data.inspect.Inspection.text", lambda inspection: 1 / 0)
    code, _, err = regraft("inspect", photos)
    assert code == 1 and "ZeroDivisionError" in err and "Traceback" not in err
    assert "Traceback" in regraft("-v", "inspect", photos)[2]


def test_an_interrupted_command_ends_with_130(regraft, monkeypatch, photos):
    def interrupt(inspection):
        raise KeyboardInterrupt

    monkeypatch.setattr("regraft.data.inspect.Inspection.text", interrupt)
    code, _, err = regraft("inspect", photos)
    assert code == 130 and "Interrupted" in err


def test_the_store_is_shown_and_cleared(regraft, photos, tmp_path):
    regraft("extract", photos, "-o", tmp_path / "features.npz", "--store", tmp_path / "store", *FAST)
    code, out, _ = regraft("store", "info", "--store", tmp_path / "store", "--json")
    (shelf,) = json.loads(out)["shelves"]
    assert code == 0 and shelf["images"] == 36 and shelf["bytes"] > 36 * 1280 * 4
    code, out, _ = regraft("store", "clear", "--store", tmp_path / "store")
    assert code == 0 and "freed" in out
    assert json.loads(regraft("store", "--store", tmp_path / "store", "--json")[1])["shelves"] == []


def test_backbones_are_listed_with_what_is_on_this_disk(regraft):
    code, out, _ = regraft("backbones", "efficientnet_lite0", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert row["name"] == "efficientnet_lite0" and row["width"] == 1280 and row["weights"].endswith(".pth")
    assert "vgg16" in regraft("backbones")[1]


def test_a_model_reports_on_itself_without_the_photographs(regraft, model, tmp_path):
    code, _, _ = regraft("report", model, "-o", tmp_path / "report.html")
    assert code == 0 and "efficientnet_lite0" in (tmp_path / "report.html").read_text("utf-8")


BAD_WORDS = {
    "an unknown flag": (["train", "{photos}", "-o", "m", "--bakbone", "x"], 2, "--backbone"),
    "an unknown command": (["trian", "{photos}"], 2, "train"),
    "no output": (["train", "{photos}"], 2, "-o MODEL"),
    "a word for a number": (["train", "{photos}", "-o", "m", "--size", "big"], 2, "--size"),
    "an unknown backbone": (["train", "{photos}", "-o", "m", "--backbone", "resnet5O"], 2, "resnet50"),
    "an unknown head": (["train", "{photos}", "-o", "m", "--head", "liner"], 2, "linear"),
    "an unknown cut": (["train", "{photos}", "-o", "m", "--cut", "blocks.99"], 2, "blocks."),
    "a size too small": (["train", "{photos}", "-o", "m", "--backbone", "inception_v3", "--weights", "random", "--size", "40"], 2, "75"),  # noqa: E501
    "shares that are no split": (["train", "{photos}", "-o", "m", "--split", "0.8/0.8"], 2, "--split"),
    "an unknown engine": (["train", "{photos}", "-o", "m", "--engine", "openvin"], 2, "openvino"),
    "an unknown precision": (["predict", "{model}", "x.jpg", "--precision", "bfloat"], 2, "bfloat16"),
    "an engine that can't": (["evaluate", "{model}", "{photos}", "--engine", "torch", "--precision", "int8"], 2, "torch: "),  # noqa: E501
    "a precision that no engine has": (["train", "{photos}", "-o", "m", "--engine", "torch", "--precision", "int8"], 2, "int8"),  # noqa: E501
    "too many views": (["train", "{photos}", "-o", "m", "--views", "5000"], 2, "--views"),
    "views that are no number": (["train", "{photos}", "-o", "m", "--views", "many"], 2, "--views"),
    "an unknown policy": (["train", "{photos}", "-o", "m", "--augmentation", "stong"], 2, "strong"),
    "an unknown parameter of a policy": (["train", "{photos}", "-o", "m", "--augmentation", "light,rotate=9"], 2, "rotation"),  # noqa: E501
    "no room in the store": (["train", "{photos}", "-o", "m", *TINY, "--store-limit=0"], 6, "--store-limit"),
    "a zero --top": (["predict", "{model}", "x.jpg", "--top", "0"], 2, "--top"),
    "a source that is not there": (["train", "{tmp}/nowhere", "-o", "m"], 3, "nowhere"),
    "an empty folder": (["train", "{tmp}/empty", "-o", "m"], 3, "empty"),
    "too many broken files": (["train", "{tmp}/broken", "-o", "m", "--max-broken", "0"], 3, "broken"),
    "a class with one image": (["train", "{tmp}/lonely", "-o", "m"], 3, "lonely"),
    "nothing to predict": (["predict", "{model}", "{tmp}/missing.jpg"], 3, "None of the inputs"),
    "another label": (["evaluate", "{model}", "{tmp}/others"], 3, "purple"),
    "a folder that is no model": (["predict", "{photos}", "x.jpg"], 4, "not a regraft model"),
    "an edited model": (["predict", "{tmp}/edited", "x.jpg"], 4, "was changed"),
    "weights of another kind": (["train", "{photos}", "-o", "m", "--weights", "{tmp}/weights.pth"], 4, "weights.pth"),
    "weights that are not here": (["train", "{photos}", "-o", "m", "--backbone", "resnet50"], 5, "efficientnet_lite0"),
    "a store that can't be made": (["train", "{photos}", "-o", "m", *TINY, "--store", "{tmp}/file/store"], 6, "store"),
    "a table over a picture": (["predict", "{model}", "x.png", "-o", "{photos}/red/000.png"], 2, ".csv"),
    "a report over a picture": (["evaluate", "{model}", "{photos}", "--report", "{photos}/red/000.png"], 2, ".html"),
    "features over a picture": (["extract", "{photos}", "-o", "{photos}/red/000.png"], 2, ".npz"),
    "the current folder as output": (["train", "{photos}", "-o", "."], 2, "nothing was written"),
    "an unknown option of the head": (["train", "{photos}", "-o", "m", "--head-options.hiden", "8"], 2, "hiden"),
    "an output that is something else": (["train", "{photos}", "-o", "{photos}"], 2, "nothing was written"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad_things(photos, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").mkdir()
    (folder / "file").write_text("a file")
    (folder / "weights.pth").write_text("not weights")
    write_photos(folder / "broken", per_class=4)
    (folder / "broken" / "red" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write_photos(folder / "lonely", per_class=4)
    write_photo(folder / "lonely" / "lonely" / "1.png", (9, 9, 9), seed=1)
    write_photo(folder / "others" / "purple" / "1.png", (120, 0, 120), seed=1)
    shutil.copytree(model, folder / "edited")
    text = (folder / "edited" / "model.json").read_text().replace('"blue"', '"azure"')
    (folder / "edited" / "model.json").write_text(text)
    return {"photos": photos, "model": model, "tmp": folder}


@pytest.mark.parametrize("kind", BAD_WORDS)
def test_bad_input_gets_one_line_on_stderr_and_its_exit_code(regraft, bad_things, tmp_path, monkeypatch, kind):
    words, expected, named = BAD_WORDS[kind]
    monkeypatch.chdir(tmp_path)
    code, out, err = regraft(*(word.format(**bad_things) for word in words))
    assert code == expected, err
    assert named in err
    assert "Traceback" not in out + err
    assert err.count("regraft: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_results_can_be_piped_into_a_command_that_stops_reading(model, photos):
    script = f"{sys.executable} -m regraft backbones '*' | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr
    assert done.returncode == 0


def test_version_is_printed(regraft):
    from importlib.metadata import version

    code, out, _ = regraft("--version")
    assert code == 0 and out.strip() == version("regraft")


def test_an_archive_is_trained_on_in_place(regraft, photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos))
    code, out, _ = regraft("train", tmp_path / "photos.zip", "-o", tmp_path / "model", "--json", *BARE)
    assert code == 0 and json.loads(out)["accuracy"] == 1
    assert sorted(os.listdir(tmp_path)) == ["model", "photos.zip"]  # noqa: PTH208


# Which network, which rate, which photographs


def test_the_deep_inspection_writes_a_page_and_a_table(regraft, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    wrong = tmp_path / "photos" / "red" / "moved.png"
    Image.open(photos / "blue" / "003.png").resize((44, 44)).save(wrong)
    words = ["inspect", tmp_path / "photos", "--deep", "--json", *FAST]
    code, out, _ = regraft(*words, "-o", tmp_path / "found.csv", "--report", tmp_path / "found.html")
    data = json.loads(out)
    assert code == 0 and "red/moved.png" in json.dumps(data)
    assert "red/moved.png" in (tmp_path / "found.csv").read_text()
    assert "red/moved.png" in (tmp_path / "found.html").read_text()
    assert sorted(path.name for path in (tmp_path / "photos" / "red").iterdir())[-1] == "moved.png"  # it is still there


def test_what_only_the_deep_inspection_writes_is_refused_without_it(regraft, photos, tmp_path):
    code, _, err = regraft("inspect", photos, "-o", tmp_path / "found.csv")
    assert code == 2 and "--deep" in err and not (tmp_path / "found.csv").exists()


@pytest.mark.slow
def test_backbones_are_compared_with_a_page(regraft, photos, tmp_path):
    words = ["--cuts", "pooled,blocks.2", "--size", 64, *FAST, "--report", tmp_path / "compare.html"]
    code, out, _ = regraft("compare", photos, "--backbones", "efficientnet_lite0", *words)
    assert code == 0 and "efficientnet_lite0 at blocks.2" in out and "Would more photographs help?" in out
    assert "blocks.2" in (tmp_path / "compare.html").read_text()
    words = ["--backbones", "efficientnet_lite0", "--cuts", "pooled", "--size", 64, *FAST]  # as stored
    code, out, _ = regraft("compare", photos, *words, "--json")
    assert code == 0 and json.loads(out)


@pytest.mark.slow
def test_a_rate_is_looked_for_and_drawn(regraft, photos, tmp_path):
    words = ["--head", "mlp", *PARTS, *BARE]
    code, out, _ = regraft("lr-find", photos, *words, "-o", tmp_path / "sweep.svg")
    assert code == 0 and "--learning-rate" in out
    assert (tmp_path / "sweep.svg").read_text().startswith("<?xml")
    code, out, _ = regraft("lr-find", photos, *words, "--cut", "blocks.6", "--tail", "--json")
    assert code == 0 and set(json.loads(out)) == {"rates", "losses", "suggestion"}


def test_a_rate_is_looked_for_as_the_guide_writes_it(regraft, photos, tmp_path):
    """The linear head, the default, needs no rate: the head that is trained in epochs is swept, and named."""
    code, out, err = regraft("lr-find", photos, *BARE, "-o", tmp_path / "sweep.html")
    assert code == 0 and "the sweep of --head mlp" in err
    assert re.search(r"begin with --head mlp --learning-rate \d", out) and "####" in out
    assert "data:image/svg+xml" in (tmp_path / "sweep.html").read_text()
    code, _, err = regraft("lr-find", photos, *BARE, "-o", tmp_path / "sweep.html")
    assert code == 2 and "--overwrite" in err


def test_an_error_is_on_one_screen_also_if_the_words_are_not(regraft, tmp_path):
    for words in (["inspect", "x" * 200 + "/" * 30_000], ["train", "a", "-o", "b", "--head", "y" * 30_000]):
        code, _, err = regraft(*words)
        assert code in (2, 3) and len(err) < 2600


@pytest.mark.slow
def test_a_search_ends_in_a_model(regraft, photos, tmp_path):
    pytest.importorskip("optuna")
    code, out, err = regraft("tune", photos, "-o", tmp_path / "model", "--trials", 3, "--views", 0, *FAST)
    assert code == 0 and "3 combinations" in out and "The model is in" in err
    assert regraft("predict", tmp_path / "model", photos / "red" / "000.png", *FAST)[0] == 0


def test_an_untrained_head_on_a_pretrained_tail_is_refused(regraft, photos, tmp_path):
    words = ["--cut", "blocks.6", "--tail", "--phases", "tail", *PARTS, *BARE]
    code, _, err = regraft("train", photos, "-o", tmp_path / "model", *words)
    assert code == 2 and "the head is untrained" in err and "--untrained-head" in err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "-o", "model", "--backbone", "resnet5O"], "No backbone 'resnet5O'. Did you mean 'resnet50'"),
        (["train", "-o", "model", "--cut", "blocks.99"], "No cut 'blocks.99'"),
        (["train", "-o", "model", "--head", "liner"], "No value of --head 'liner'. Did you mean 'linear'"),
        (["train", "-o", "model", "--head-options.hiden", "3", "--head", "mlp"], "Did you mean 'hidden'"),
        (["train", "-o", "model", "--epochs", "2.7"], "--epochs: expected a whole number"),
        (["train", "-o", "model", "--size", "150.5"], "--size: expected a whole number"),
        (["train", "-o", "model", "--patience", "x"], "--patience"),
        (["extract", "-o", "features.docx"], "expected a name that ends in .npz or .parquet"),
        (["extract", "-o", "features.npz", "--backbone", "resnet5O"], "No backbone 'resnet5O'"),
        (["compare", "--backbones", "efficientnet_lite0,resnet5O"], "No backbone 'resnet5O'"),
        (["compare", "--cuts", "pooled,blocks.99"], "No cut 'blocks.99'"),
        (["compare", "--report", "page.pdf"], "expected a name that ends in .html"),
        (["tune", "-o", "model", "--cuts", "pooled,blocks.99"], "No cut 'blocks.99'"),
        (["lr-find", "--backbone", "resnet5O"], "No backbone 'resnet5O'"),
        (["inspect", "--deep", "--backbone", "resnet5O"], "No backbone 'resnet5O'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_with_the_words_is_said_before_any_image_is_read(regraft, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, out, err = regraft(words[0], tmp_path / "empty", *words[1:])
    assert (code, out) == (2, "") and message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_one_class_is_refused_before_features_are_computed(regraft, tmp_path, photos):
    shutil.copytree(photos / "red", tmp_path / "photos" / "red")
    store = tmp_path / "store"
    code, _, err = regraft("train", tmp_path / "photos", "-o", tmp_path / "model", "--store", store, *FAST)
    assert code == 3 and "one class only (red)" in err
    assert not list(store.glob("*/data.mdb"))


def test_pictures_without_a_class_have_features_too(regraft, photos, tmp_path):
    for source, number in ((photos / "red" / "000.png", 1), (photos / "red", 12)):
        code, _, err = regraft("extract", source, "-o", tmp_path / f"{number}.npz", *FAST)
        assert code == 0 and f"The features of {number} image" in err
        with np.load(tmp_path / f"{number}.npz") as saved:
            assert saved["features"].shape[0] == number and set(saved["labels"]) == {""}
            assert saved["paths"][0].endswith("red/000.png")


def test_the_images_of_a_csv_are_predicted_with_a_row_for_every_line(regraft, model, photos, tmp_path):
    shutil.copytree(photos / "red", tmp_path / "red")
    (tmp_path / "list.csv").write_text("file_name,label\nred/000.png,red\nred/missing.png,red\nred/001.png,red\n")
    code, out, _ = regraft("predict", model, tmp_path / "list.csv", "--json", *FAST)
    rows = json.loads(out)
    assert code == 0 and [row["path"] for row in rows] == ["red/000.png", "red/missing.png", "red/001.png"]
    assert [row["status"] for row in rows] == ["ok", "broken", "ok"] and "line 3: No such file" in rows[1]["error"]
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "list.csv").write_text("a,b\n../red/000.png,1\n")
    code, out, _ = regraft("predict", model, tmp_path / "below" / "list.csv", *FAST)
    assert code == 3 and "points outside the CSV's folder; --outside allows that" in out
    code, out, _ = regraft("predict", model, tmp_path / "below" / "list.csv", "--outside", "--path-column", "a", *FAST)
    assert code == 0 and "red" in out
