import pytest

from regraft.core.errors import DataError
from regraft.data.sources import table


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "set"
    (inside / "pictures").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg", "pictures/3.jpg", "../outside.jpg"):
        (inside / name).write_bytes(name.encode())
    return inside


def rows(folder, text, *, outside=False, encoding="utf-8"):
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return list(table.rows(path, outside=outside))


def refusal(folder, text):
    with pytest.raises(DataError) as caught:
        rows(folder, text)
    return str(caught.value)


def test_columns_come_in_any_order_and_paths_are_relative_to_the_csv(folder):
    table_rows = rows(folder, "label,group,path,part,width\ncat,g1,1.jpg,train,3\ndog,,pictures/3.jpg,Valid,4\n")
    assert [(row.path, row.label, row.part, row.group, row.location.read()) for row in table_rows] == [
        ("1.jpg", "cat", "train", "g1", b"1.jpg"),
        ("pictures/3.jpg", "dog", "validation", None, b"pictures/3.jpg"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_common_kinds_of_csv_are_read_alike(folder, delimiter, encoding, end):
    lines = ["Path,Label", "1.jpg,café", "", '"2.jpg",dog']
    table_rows = rows(folder, end.join(lines).replace(",", delimiter), encoding=encoding)
    assert [(row.path, row.label) for row in table_rows] == [("1.jpg", "café"), ("2.jpg", "dog")]


def test_windows_separators_are_understood(folder):
    [row] = rows(folder, "path,label\npictures\\3.jpg,cat\n")
    assert row.location.read() == b"pictures/3.jpg"


def test_all_errors_are_reported_together_each_with_its_line(folder):
    text = refusal(
        folder,
        "path,label,part\n1.jpg,cat,train\n2.jpg,cat\n2.jpg,,train\n2.jpg,cat,dev\ngone.jpg,cat,test\n../outside.jpg,cat,test\n"
        ",cat,test\npictures,cat,test\na\0b,cat,test\n",
    )
    expected = {
        3: "more or fewer fields",
        4: "the label is empty",
        5: "the part is 'dev'; expected one of train, validation, test",
        6: "No such file: gone.jpg",
        7: "../outside.jpg points outside the CSV's folder; --outside allows that",
        8: "the path is empty",
        9: "No such file: pictures",
        10: "is not a valid path",
    }
    for line, error in expected.items():
        assert f"line {line}: " in text
        assert error in text.split(f"line {line}: ")[1].split("\n")[0]
    assert "line 2:" not in text


def test_the_first_twenty_errors_are_shown_and_the_rest_counted(folder):
    text = refusal(folder, "path,label\n" + "gone.jpg,cat\n" * 50)
    assert "line 21: " in text
    assert "line 22: " not in text
    assert text.endswith("and 30 more")


def test_paths_may_point_outside_when_allowed(folder):
    [row] = rows(folder, "path,label\n../outside.jpg,cat\n", outside=True)
    assert row.location.read() == b"../outside.jpg"


def test_a_link_that_points_outside_counts_as_outside(folder):
    (folder / "link.jpg").symlink_to(folder.parent / "outside.jpg")
    assert "points outside the CSV's folder" in refusal(folder, "path,label\nlink.jpg,cat\n")


def test_an_absolute_path_inside_the_folder_is_fine(folder):
    [row] = rows(folder, f"path,label\n{folder / '1.jpg'},cat\n")
    assert row.location.read() == b"1.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: no column path and no label; got nothing, expected path,label"),
        (b"file,label\n1.jpg,cat\n", "line 1: no column path; got file, label, expected path,label"),
        (b"path,label,label\n1.jpg,cat,cat\n", "line 1: the column label exists more than once"),
        (b"path,label\n", "no lines below it"),
        ("path,label\n1.jpg,cat\n".encode("utf-16"), "line 1: the text is UTF-16"),
        (b"path,label\n1.jpg,cat\n2.jpg,caf\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
        (b'path,label\n1.jpg,cat\n"2.jpg,dog\n', "line 3: "),
    ],
)
def test_a_file_that_is_not_such_a_table_is_refused_with_the_line(folder, content, message):
    assert message in refusal(folder, content)


def test_a_missing_csv_is_refused(tmp_path):
    with pytest.raises(DataError, match="can't be read: No such file"):
        list(table.rows(tmp_path / "none.csv", outside=False))
