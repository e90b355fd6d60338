"""What `inspect` finds in real files, against what was put there."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from regraft.data.index import Index, Row
from regraft.data.inspect import Inspection, inspect
from regraft.data.read import read

RNG = np.random.default_rng(0)


def save(path, size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path, **options)
    return path


@pytest.fixture
def source(tmp_path):
    """Two classes: copies within one, a picture under both, a file cut short, one that is no image."""
    photos = tmp_path / "photos"
    for number, size in enumerate([(8, 6), (10, 20), (30, 12)]):
        save(photos / "cat" / f"{number}.png", size)
    (photos / "cat" / "copy.png").write_bytes((photos / "cat" / "1.png").read_bytes())
    save(photos / "dog" / "0.jpg", (16, 16))
    (photos / "dog" / "stray.jpg").write_bytes((photos / "cat" / "2.png").read_bytes())
    (photos / "dog" / "cut.png").write_bytes(save(photos / "dog" / "1.png").read_bytes()[:-30])
    (photos / "dog" / "notes.txt").write_text("no image")
    return photos


def test_everything_in_a_source_is_counted_and_listed(source):
    counts = inspect(read(source)).to_dict()
    assert counts["classes"] == {"cat": 3, "dog": 2}
    assert counts["formats"] == {"PNG": 4, "JPEG": 1}
    assert counts["sizes"] == {
        "width": {"min": 8, "median": 10, "max": 16},
        "height": {"min": 6, "median": 16, "max": 20},
    }
    assert counts["files"]["copies"] == [["cat/1.png", "cat/copy.png"], ["cat/2.png", "dog/stray.jpg"]]
    conflict = [{"path": "cat/2.png", "label": "cat"}, {"path": "dog/stray.jpg", "label": "dog"}]
    assert counts["files"]["conflicts"] == [conflict]
    assert [file["path"] for file in counts["files"]["broken"]] == ["dog/cut.png"]
    assert "PNG" in counts["files"]["broken"][0]["reason"]
    assert {file["path"] for file in counts["files"]["ignored"]} == {"cat/2.png", "dog/stray.jpg", "dog/notes.txt"}
    assert {name: counts[name] for name in ("used", "ignored", "broken", "copies", "conflicts")} == {
        "used": 5,
        "ignored": 3,
        "broken": 1,
        "copies": 2,
        "conflicts": 1,
    }
    assert json.loads(json.dumps(counts)) == counts


def test_what_is_converted_or_left_out_is_counted_and_told_with_an_example(tmp_path):
    for number in range(3):
        save(tmp_path / "a" / f"{number}.png")
    pages = [Image.new("L", (8, 6), grey) for grey in (1, 2)]
    pages[0].save(tmp_path / "a" / "pages.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(np.full((6, 8), 30_000, np.uint16)).save(tmp_path / "a" / "deep.png")
    Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(tmp_path / "a" / "deeper.png")
    inspection = inspect(read(tmp_path))
    many, deep = "the first of several frames or pages", "more than 8 bits, reduced to 8"
    counts = inspection.to_dict()
    assert counts["remarks"] == {deep: 2, many: 1}
    assert {"path": "a/pages.tif", "reason": many} in counts["files"]["remarks"]
    assert f"  2 x {deep}\n      such as a/deep.png\n  1 x {many}\n      such as a/pages.tif" in inspection.text()


def test_nothing_is_reported_for_images_that_are_read_as_they_are(source):
    inspection = inspect(read(source))
    assert inspection.to_dict()["remarks"] == {} and "left out" not in inspection.text()


def test_the_index_that_comes_back_has_every_row_and_the_broken_ones_marked(source):
    before = read(source)
    after = inspect(before).index
    assert [row.path for row in after] == [row.path for row in before]
    assert [row.path for row in before.broken] == [], "the header alone does not show that a file is cut"
    assert [row.path for row in after.broken] == ["dog/cut.png"]


def test_a_broken_image_and_its_copy_are_both_broken_and_do_not_count_as_copies(source):
    (source / "dog" / "cut again.png").write_bytes((source / "dog" / "cut.png").read_bytes())
    counts = inspect(read(source)).to_dict()
    assert counts["broken"] == 2
    assert counts["copies"] == 2


def test_a_file_that_vanishes_after_reading_is_broken_and_nothing_fails(source):
    index = read(source)
    (source / "dog" / "0.jpg").unlink()
    assert {row.path for row in inspect(index).index.broken} == {"dog/0.jpg", "dog/cut.png"}


def test_parts_are_counted(tmp_path):
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            save(tmp_path / "photos" / part / "cat" / f"{number}.png")
    assert inspect(read(tmp_path / "photos")).to_dict()["parts"] == {"train": 3, "validation": 2, "test": 1}


def test_the_same_source_is_described_the_same_way_twice(source):
    assert inspect(read(source)).text() == inspect(read(source)).text()


# Text


def test_the_text_holds_the_counts_and_the_lists(source):
    shown = inspect(read(source)).text()
    for line in (
        "5 used, 3 ignored, 1 broken",
        "2 classes",
        "8 x 6 min, 10 x 16 median, 16 x 20 max",
        "4 PNG, 1 JPEG",
        "1 file broken\n  dog/cut.png\n",
        "1 picture under more than one label; their 2 files are ignored",
        "cat/2.png = dog/stray.jpg",
        "2 pictures in more than one file",
        "1 file ignored\n  1 x not an image\n      such as dog/notes.txt\n",
    ):
        assert line in shown


def described(rows, width=80):
    return Inspection(Index(tuple(rows), name="photos")).text(width)


def image(path, label="cat", **more):
    return Row(path=path, location=None, id=path, label=label, format="PNG", size=(1, 1), **more)


def test_the_bars_are_as_long_as_the_classes_are_large():
    rows = [image(f"{label}{n}", label) for label, count in (("a", 40), ("bb", 20), ("c", 1)) for n in range(count)]
    lines = described(rows).splitlines()
    bars = [next(line for line in lines if line.startswith(f"  {label} ")).count("#") for label in ("a", "bb", "c")]
    assert bars[0] == 2 * bars[1] > 40
    assert bars[2] >= 1


def columns(line):
    """Return how wide a terminal shows a line: Unicode Annex 11, wide and full-width characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


@pytest.mark.parametrize("width", [40, 80, 133])
def test_no_line_is_wider_than_the_terminal(width):
    long = "a long folder name/" * 9
    rows = [image(f"{long}{n}.png", f"{'klass ' * 20}{n % 3}") for n in range(30)]
    rows += [image(f"{'写真' * 40}{n}.png", "日本語" * 20) for n in range(3)]
    rows += [image(f"{long}bad{n}", status="broken", reason="the reason is long " * 9) for n in range(30)]
    rows += [replace(image(f"{long}{label}{n}", label), id="same") for n in range(3) for label in ("cat", "dog" * 30)]
    lines = described(rows, width).splitlines()
    assert max(map(columns, lines)) <= width


def test_long_lists_are_shortened_and_say_how_many_more():
    shown = described([image(f"{n}.png", status="broken", reason="cut short") for n in range(35)])
    assert "35 files broken" in shown
    assert shown.count("\n      cut short") == 10
    assert "and 25 more; --json lists all" in shown


def test_ignored_files_are_shown_by_their_reasons():
    rows = [image(f"{n}.txt", status="ignored", reason="not an image") for n in range(7)]
    rows += [image(f".{n}", status="ignored", reason="hidden") for n in range(2)]
    assert "9 files ignored\n  7 x not an image\n      such as 0.txt\n  2 x hidden\n      such as .0\n" in described(
        rows
    )


def test_classes_whose_shortened_names_are_equal_keep_a_line_each():
    rows = [image(str(n), "x" * 30 + f"{n}" + "y" * 60) for n in range(3)]
    assert described(rows).count("#") == 3 * described(rows[:1]).count("#")


def test_nothing_used_is_described_too():
    assert "0 used, 0 ignored, 0 broken" in described([])


@pytest.mark.parametrize("evil", ["\x1b[2J\x1b[31m", "\r", "\n", "\x07", "\x9b1m", "\u202e", "\u2028", "\udcff", "\0"])
def test_control_characters_never_reach_the_terminal(evil):
    rows = [image(f"{evil}{n}.png", f"cat{evil}") for n in range(2)]
    rows += [image(f"bad{evil}", status="broken", reason=f"why{evil}"), replace(rows[0], path=f"copy{evil}", label="b")]
    shown = described(rows)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert evil == "\n" or evil not in shown
    shown.encode()
