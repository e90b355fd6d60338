import csv
import io
import json
import unicodedata

import pytest

from regraft.core.text import (
    count,
    csv_text,
    equated,
    listed,
    listed_lines,
    on_one_screen,
    percent,
    printable,
    printable_json,
    printable_lines,
    rest_line,
    shorten,
    table,
)


def columns(line):
    """Return how wide a terminal shows a line: Unicode Annex 11, wide and full-width characters take two."""
    marks = sum(unicodedata.combining(character) > 0 for character in line)
    return len(line) - marks + sum(unicodedata.east_asian_width(character) in "WF" for character in line)


@pytest.mark.parametrize(
    "text",
    [
        "bad\udcff.jpg",
        "line\nbreak",
        "\x1b[31mred",
        "\ud800",
        "\u202e",
        "\u2066",
        "\u2028",
        "\x9b1m",
        "\uffff",
        "\u200f",
    ],
)
def test_what_is_shown_can_be_encoded_and_holds_no_control_characters(text):
    shown = printable(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert shown.isprintable()
    assert printable(shown) == shown


def test_other_scripts_and_emoji_are_shown_as_they_are():
    text = "кошка 猫 👩\u200d🔬 \u05d6\u05d1\u05e8\u05d4.jpg"
    assert printable(text) == text


def test_an_escaped_character_reads_as_in_python_and_json():
    assert printable("a\tb\x1b\u2028") == r"a\tb\x1b\u2028"
    assert json.loads(f'"{printable(chr(0x2028))}"') == chr(0x2028)


@pytest.mark.parametrize("width", range(10, 40))
def test_a_shortened_path_keeps_its_beginning_and_its_end(width):
    path = "photos/a/very/long/way/down/to/the/picture.jpeg"
    short = shorten(path, width)
    head, tail = short.split("…")
    assert len(short) == width
    assert path.startswith(head) and path.endswith(tail) and len(tail) > len(head)
    assert shorten(path, 80) == path


@pytest.mark.parametrize("width", range(1, 30))
@pytest.mark.parametrize("text", ["写真" * 40, "e\u0301" * 60, "a写" * 40, "x\x1b" * 40])
def test_a_shortened_text_is_no_wider_than_asked_in_any_script(width, text):
    assert columns(shorten(text, width)) <= width


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1200, "1,200 files"), ([7], "1 file")]
)
def test_a_count_agrees_with_its_noun(number, expected):
    assert count(number, "file") == expected


def test_a_plural_of_its_own_is_given():
    assert [count(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]


@pytest.mark.parametrize(
    ("share", "digits", "expected"),
    [(0.5, 1, "50.0"), (1.0, 1, "100.0"), (0.99999, 1, "99.9"), (0.99999, 0, "99"), (0.876, 0, "88"), (0.0, 1, "0.0")],
)
def test_a_hundred_percent_is_kept_for_all_of_them(share, digits, expected):
    assert percent(share, digits) == expected


def test_a_long_list_says_how_many_more_there_are():
    names = [str(number) for number in range(1007)]
    assert listed(names) == "0, 1, 2, 3, 4 and 1,002 more"
    assert listed(names[:5]) == "0, 1, 2, 3, 4"
    assert listed(set(names[:1])) == "0"
    assert listed(names[:4], 2, "; ") == "0; 1 and 2 more"
    assert listed([]) == listed_lines([]) == ""
    assert listed_lines(names[:3], 2) == "\n  0\n  1\n  and 1 more"
    assert listed_lines(names[:2], 2) == "\n  0\n  1"


def test_the_columns_of_a_table_stand_under_each_other():
    rows = [["name", "images", "note"], ["猫", "1,200", ""], ["zebra", "7", "few"]]
    assert table(rows) == ["name   images  note", "猫      1,200", "zebra       7   few"]
    assert table(rows, left=3) == ["name   images  note", "猫     1,200", "zebra  7       few"]


def test_the_rest_of_a_list_is_counted():
    assert rest_line(range(1205), 5) == ["  and 1,200 more; --json lists all"]
    assert rest_line("abc", 3) == []


def test_files_of_equal_content_are_shown_as_two_and_a_number():
    assert equated(["a.jpg", "b.jpg"], 80) == "a.jpg = b.jpg"
    assert equated(["a.jpg", "b.jpg", "c.jpg"], 80) == "a.jpg = b.jpg and 1 more"
    assert columns(equated(["写真" * 40] * 5, 60)) <= 60


def test_a_text_longer_than_a_screen_keeps_its_beginning_and_its_end():
    text = "".join(f"class {number}, " for number in range(5000)) + "expected one of them."
    shown = on_one_screen(text)
    start, end = shown.split(" [… ")[0], shown.split("left out …] ")[1]
    assert text.startswith(start) and text.endswith(end) and len(shown) < 2500
    assert shown.count(f"{len(text) - 2400:,} characters left out") == 1
    assert on_one_screen("short") == "short"


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "=HYPERLINK(1)"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_runs_no_text_of_a_csv_unless_formulas_are_wanted(text):
    rows = [["path", "label"], [text, 7], ["a.jpg", "-3"], ["b.jpg", "-3.5e-2"]]
    [_, [path, number], [_, label], _] = csv.reader(io.StringIO(csv_text(rows)))
    assert (path, number, label) == ("'" + text, "7", "-3")
    assert list(csv.reader(io.StringIO(csv_text(rows, formulas=True))))[1][0] == text


def test_lines_and_json_for_a_terminal_keep_their_lines_and_hold_nothing_that_steers_it():
    evil = "\x1b[2J\x9b1m\u202e\u200f\u2066"
    assert printable_lines(f"a{evil}\nb\n").count("\n") == 2
    data = {f"k{evil}": [evil, "猫"]}
    text = printable_json(json.dumps(data, indent=1, ensure_ascii=False))
    assert json.loads(text) == data and "猫" in text
    for shown in (text, printable_lines(f"a{evil}\nb")):
        assert all(character.isprintable() or character == "\n" for character in shown)
