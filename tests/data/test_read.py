import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from regraft.core.errors import DataError, UnknownName, UsageError
from regraft.data import usable
from regraft.data.index import Index
from regraft.data.read import SourceOptions, has_labels, read, read_inputs
from regraft.data.usable import BrokenOptions


def picture(number, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (20 + number % 7, 30), (number % 256, number // 256, 7)).save(file, kind)
    return file.getvalue()


def write(folder, contents):
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def outcome(index):
    return {row.path: (row.status, row.reason) for row in index}


@pytest.fixture
def photos(tmp_path):
    contents = {f"{label}/{n}.jpg": picture(100 * k + n) for k, label in enumerate(["dog", "cat"]) for n in range(5)}
    return write(tmp_path / "photos", contents)


def test_each_row_has_the_sha256_of_its_bytes_and_what_they_say_that_it_is(tmp_path):
    kinds = ["JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF"]
    write(tmp_path, {f"a/{kind}.odd": picture(number, kind) for number, kind in enumerate(kinds)})
    index = read(tmp_path)
    assert {(row.path, row.format, row.size) for row in index} == {
        (f"a/{kind}.odd", kind, (20 + number, 30)) for number, kind in enumerate(kinds)
    }
    for row in index:
        assert row.id == hashlib.sha256((tmp_path / row.path).read_bytes()).hexdigest()


def test_classes_are_sorted_and_rows_keep_the_sources_order(photos):
    index = read(str(photos))
    assert index.classes == ("cat", "dog")
    assert [row.path for row in index] == [f"{label}/{n}.jpg" for label in ("cat", "dog") for n in range(5)]
    assert index.name == str(photos)


@pytest.mark.parametrize("quick", [0, 3600])
def test_more_rows_than_a_batch_keep_their_order_and_their_bytes_in_threads_and_without(tmp_path, monkeypatch, quick):
    monkeypatch.setattr("regraft.data.read._QUICK", quick)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for number in range(1500):
            file.writestr(f"class{number % 2}/{number}.png", picture(number))
    index = read(tmp_path / "a.zip")
    assert [row.id for row in index] == [hashlib.sha256(picture(number)).hexdigest() for number in range(1500)]


def test_what_is_meant_to_be_an_image_is_broken_and_other_files_are_ignored(photos):
    write(
        photos / "cat",
        {
            "notes.txt": b"a cat",
            "labels.csv": b"path,label\n",
            "film.mp4": b"\0\0\0\x18ftypmp42",
            ".hidden.jpg": picture(1),
            "Thumbs.db": b"\xd0\xcf",
            "text.jpg": b"this is text",
            "cut.jpg": picture(3, "JPEG")[:20],
            "cut": picture(3, "JPEG")[:20],
            "drawing.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n",
            "layers.jpg": b"8BPS\0\1",
            "layers": b"8BPS\0\1",
            "phone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0",
            "empty.jpg": b"",
            "empty": b"",
        },
    )
    outcomes = {path: status for path, (status, _) in outcome(read(photos)).items() if not path[4].isdigit()}
    ignored = {"notes.txt", "labels.csv", "film.mp4", ".hidden.jpg", "Thumbs.db"}
    assert {path.removeprefix("cat/") for path, status in outcomes.items() if status == "ignored"} == ignored
    assert {status for path, status in outcomes.items() if path.removeprefix("cat/") not in ignored} == {"broken"}


def test_every_ignored_or_broken_row_says_why(photos):
    write(
        photos / "cat",
        {"a.jpg": b"", "b.jpg": b"text", "c.txt": b"text", ".d": b"", "e.jpg": b"%!PS-Adobe-3.0 EPSF-3.0"},
    )
    (photos / "cat" / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    outcomes = outcome(read(photos))
    assert outcomes["cat/a.jpg"] == ("broken", "empty file")
    assert outcomes["cat/b.jpg"][1].startswith("not an image that is read here")
    assert outcomes["cat/c.txt"] == ("ignored", "not an image")
    assert outcomes["cat/.d"] == ("ignored", "hidden or system file")
    assert outcomes["cat/e.jpg"] == ("broken", "EPS is not read; convert it to JPEG or PNG")
    assert outcomes["cat/gone.jpg"] == ("broken", "No such file or directory")


def test_a_huge_file_is_broken_by_an_image_name_and_ignored_otherwise(photos):
    for name in ("film.avi", "huge.png", "huge"):
        with (photos / "cat" / name).open("wb") as file:
            file.write(b"" if name == "film.avi" else b"\x89PNG")
            file.truncate(2**30)
    outcomes = outcome(read(photos))
    assert outcomes["cat/film.avi"] == ("ignored", "not an image")
    assert outcomes["cat/huge.png"] == outcomes["cat/huge"] == ("broken", "larger than 512 MiB")


@pytest.fixture
def conflicting(photos):
    same = picture(999)
    return write(photos, {"cat/a.png": same, "cat/b.png": same, "dog/c.png": same, "dog/d.png": picture(100)})


def test_a_picture_under_two_labels_is_ignored_with_all_its_copies_each_naming_another(conflicting):
    outcomes = outcome(read(conflicting))
    assert outcomes["cat/a.png"] == ("ignored", "the same picture is labelled 'dog' in dog/c.png")
    assert outcomes["cat/b.png"] == ("ignored", "the same picture is labelled 'dog' in dog/c.png")
    assert outcomes["dog/c.png"] == ("ignored", "the same picture is labelled 'cat' in cat/a.png")


def test_copies_within_one_label_stay(photos):
    write(photos, {"cat/copy.png": (photos / "cat/0.jpg").read_bytes()})
    assert len(read(photos).used) == 11


def test_conflicts_can_be_kept(conflicting):
    assert len(read(conflicting, options=SourceOptions(conflicts="keep")).used) == 14


def test_conflicts_can_be_an_error_that_lists_them(conflicting):
    with pytest.raises(DataError) as caught:
        read(conflicting, options=SourceOptions(conflicts="error"))
    assert "cat/a.png: the same picture is labelled 'dog' in dog/c.png" in str(caught.value)
    assert str(caught.value).count("\n") == 5  # three files, and the copy of cat/0.jpg in dog with its original


def test_no_conflict_is_no_error(photos):
    assert len(read(photos, options=SourceOptions(conflicts="error")).used) == 10


def test_all_kinds_of_source_give_the_same_images(photos, tmp_path):
    paths = sorted(str(path) for path in photos.glob("*/*.jpg"))
    labels = [Path(path).parent.name for path in paths]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for path in paths:
            file.write(path, f"photos/{Path(path).relative_to(photos)}")
    lines = [f"{Path(path).relative_to(tmp_path)},{label}\n" for path, label in zip(paths, labels, strict=True)]
    (tmp_path / "a.csv").write_text("path,label\n" + "".join(lines))
    frame = pd.DataFrame({"path": paths, "label": labels})
    sources = [read(photos), read(tmp_path / "a.zip"), read(tmp_path / "a.csv"), read(paths, labels), read(frame)]
    seen = [[(row.id, row.label, row.status, row.size) for row in index] for index in sources]
    assert seen[1:] == seen[:1] * 4
    assert len(seen[0]) == 10


def test_a_file_that_a_list_names_is_meant_to_be_an_image(tmp_path):
    write(tmp_path, {"notes.txt": b"text", "1.png": picture(1)})
    index = read([tmp_path / "notes.txt", tmp_path / "1.png", tmp_path / "gone.png"], ["a", "a", "b"])
    assert [row.status for row in index] == ["broken", "used", "broken"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone", None, "No such file or folder: .*gone. Expected one folder per class"),
        ("page.zip", b"<!DOCTYPE html>", "not a zip, tar or tar.gz archive by its bytes"),
        ("1.png", picture(1), "is a single picture"),
        ("long" * 2000, None, "can't be read: File name too long"),
        ("nul\0", None, "No such file or folder: "),
    ],
)
def test_a_path_that_is_not_a_source_is_refused_with_what_would_work(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_lists_and_labels_belong_together(photos):
    with pytest.raises(DataError, match="without labels"):
        read([photos / "cat/0.jpg"])
    with pytest.raises(DataError, match="expected a list of paths"):
        read(photos, ["cat"])


@pytest.mark.parametrize(
    ("source", "labels", "message"),
    [
        (5, None, r"The source is 5 \(int\); expected the path of a folder"),
        (None, None, r"The source is None \(NoneType\)"),
        (b"photos", None, r"The source is b'photos' \(bytes\)"),
        (["a", 3], ["x", "y"], r"Path number 1 is 3 \(int\); expected the path of an image"),
        (["a"], 5, r"The labels are 5 \(int\); expected a list with one label for each path"),
        (pd.DataFrame({"path": [], "label": []}), [1], "Labels were given together with the DataFrame"),
        (Index(()), [1], r"The source is <Index of .* \(Index\)"),
        (range(10**6), None, "without labels"),
    ],
)
def test_a_source_of_another_type_is_refused_in_one_line(source, labels, message):
    with pytest.raises(DataError, match=message) as caught:
        read(source, labels)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("inputs", [5, None, ["a.jpg", 3], [None]])
def test_inputs_of_another_type_are_refused_in_one_line(inputs):
    with pytest.raises(DataError, match=r"expected a path of an image, folder, archive or CSV, the bytes"):
        read_inputs(inputs)


def test_one_path_is_one_input(photos):
    for path in (photos / "cat/0.jpg", str(photos / "cat/0.jpg")):
        assert [row.status for row in read_inputs(path)] == ["used"]


def test_an_index_is_read_as_it_is(photos):
    index = read(photos)
    assert read(index) is index


def test_options_check_themselves():
    with pytest.raises(UnknownName, match="--conflicts"):
        SourceOptions(conflicts="drop")
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="--max-broken"):
            BrokenOptions(max_broken=share)


def test_reading_leaves_the_source_as_it_was(conflicting):
    def state():
        return {
            path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in conflicting.rglob("*")
        }

    before = state()
    read(conflicting)
    assert state() == before


def test_a_file_that_changes_after_reading_is_noticed_and_one_that_stays_is_not_hashed_again(photos, monkeypatch):
    monkeypatch.setattr("regraft.data.sources.folder.CLOCK", 0)
    index = read(photos)
    (photos / "cat/1.jpg").write_bytes(picture(5000))
    (photos / "cat/2.jpg").write_bytes((photos / "cat/2.jpg").read_bytes())  # written again, with equal bytes
    assert [row.path for row in index if row.has_changed(row.location.read())] == ["cat/1.jpg"]
    assert all(row.stamp == row.location.stamp() != 0 for row in index if row.path[-5] not in "12")


def test_a_broken_share_up_to_the_limit_passes_and_above_it_is_refused_with_the_list(photos):
    write(photos, {f"cat/broken{n}.jpg": b"" for n in range(2)})
    index = read(photos)
    usable.check(index, 2 / 12)
    with pytest.raises(DataError) as caught:
        usable.check(index, 0.16)
    first, *files = str(caught.value).split("\n")
    assert first.startswith("2 of 12 images in ")
    assert files == ["  cat/broken0.jpg: empty file", "  cat/broken1.jpg: empty file"]


def test_a_long_list_of_broken_files_is_cut(photos):
    write(photos, {f"cat/broken{n}.jpg": b"" for n in range(30)})
    with pytest.raises(DataError, match=r"\n  and 10 more$"):
        usable.check(read(photos), 0.5)


def test_an_index_with_nothing_to_use_is_refused_with_reasons(tmp_path):
    index = read(write(tmp_path, {"cat/notes.txt": b"text"}))
    with pytest.raises(DataError, match=r"No usable image in .*:\n  cat/notes.txt: not an image"):
        usable.check(index, 1)


def test_inputs_to_predict_keep_their_order_and_each_has_a_row(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("deep/down/x.png", picture(1))
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 and no more")
    (tmp_path / "none").mkdir()
    write(tmp_path, {"notes.txt": b"text", ".hidden.png": picture(2)})
    names = ["gone.jpg", "a.zip", "photos/dog", "none", "bad.zip", "notes.txt", ".hidden.png"]
    index = read_inputs([tmp_path / name for name in names])
    base = tmp_path.as_posix()
    assert [(row.path.removeprefix(base + "/"), row.status) for row in index] == [
        ("gone.jpg", "broken"),
        ("a.zip/deep/down/x.png", "used"),
        *((f"photos/dog/{n}.jpg", "used") for n in range(5)),
        ("none", "ignored"),
        ("bad.zip", "broken"),
        ("notes.txt", "broken"),
        (".hidden.png", "used"),
    ]
    assert {row.label for row in index} == {None}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_inputs_that_can_not_be_read_are_broken_and_never_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    index = read_inputs([tmp_path / "pipe.jpg", "long" * 2000, "nul\0"])
    assert [row.reason for row in index] == ["not a regular file", "File name too long", "null byte in its path"]
    with pytest.raises(DataError, match="is not a folder"):
        read(tmp_path / "pipe.jpg")


def test_no_inputs_give_an_empty_index():
    assert len(read_inputs([])) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no names that are not text")
def test_names_that_are_not_text_can_be_written_as_json(tmp_path):
    try:
        write(tmp_path, {os.fsdecode(b"cat/\xff.png"): picture(1), "cat/😀\n.png": picture(2)})
    except OSError:
        pytest.skip("this file system wants names that are text")
    index = read(tmp_path)
    assert [row.status for row in index] == ["used", "used"]
    assert json.dumps([row.path for row in index], ensure_ascii=False).encode()


def test_the_labels_of_a_list_of_paths_may_be_in_the_paths(photos):
    paths = sorted(photos.rglob("*.jpg"))
    index = read(paths, options=SourceOptions(label_from="{label}/#.jpg"))
    assert [row.label for row in index] == [path.parent.name for path in paths]


def test_a_pattern_beside_labels_is_refused(photos):
    options = SourceOptions(label_from="{label}/#.jpg")
    (photos / "labels.csv").write_text("path,label\ncat/1.jpg,cat\n")
    frame = pd.DataFrame({"path": ["a"], "label": ["cat"]})
    for source, labels in ((photos / "labels.csv", None), (["a"], ["cat"]), (frame, None)):
        with pytest.raises(DataError, match="--label-from is for files in folders and archives"):
            read(source, labels, options=options)


def test_a_column_of_a_folder_is_refused(photos):
    with pytest.raises(DataError, match="--label-column and --part-column are for tables"):
        read(photos, options=SourceOptions(label_column="kind"))


def test_inputs_are_whatever_a_source_is_and_need_no_labels(photos, tmp_path):
    pandas = pytest.importorskip("pandas")
    paths = [photos / "cat/1.jpg", photos / "cat/2.jpg"]
    ids = [row.id for row in read_inputs(paths)]
    frame = pandas.DataFrame({"picture": map(str, paths), "weight": [1, 2]})
    assert [row.id for row in read_inputs(frame)] == ids
    assert [row.id for row in read_inputs([frame, paths[0]])] == [*ids, ids[0]]
    labelled = read([str(path) for path in paths], ["cat", "cat"])
    assert read_inputs(labelled) is labelled
    (photos / "list.csv").write_text("paths\ncat/1.jpg\ncat/2.jpg\n")
    assert [row.id for row in read_inputs(photos / "list.csv")] == ids
    (photos / "odd.csv").write_text("a,b\n1,2\n")
    (row,) = read_inputs(photos / "odd.csv")
    assert row.status == "broken" and "no column path; got a, b" in row.reason


def test_a_lone_picture_and_a_folder_of_pictures_have_no_labels_and_all_else_may(photos, tmp_path):
    for source in (photos / "cat/1.jpg", photos / "cat", picture(1)):
        assert not has_labels(source)
    (tmp_path / "table.csv").write_text("path,label\n")
    for source in (photos, tmp_path / "table.csv", tmp_path / "missing", [], read([photos / "cat/1.jpg"], ["cat"])):
        assert has_labels(source)
