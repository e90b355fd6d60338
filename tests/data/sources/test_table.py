import unicodedata

import pytest

from regraft.core.errors import DataError
from regraft.data.sources import table
from regraft.data.sources._columns import ColumnNames


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "set"
    (inside / "pictures").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg", "pictures/3.jpg", "../outside.jpg"):
        (inside / name).write_bytes(name.encode())
    return inside


def rows(folder, text, *, outside=False, encoding="utf-8", **columns):
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return list(table.rows(path, outside=outside, columns=ColumnNames(**columns)))


def meanings(table_rows):
    return [(row.path, row.label, row.part) for row in table_rows]


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
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
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
        "path,label,part\n1.jpg,cat,train\n2.jpg,cat\n2.jpg,,train\n2.jpg,cat,blind\ngone.jpg,cat,test\n../outside.jpg,cat,test\n"
        ",cat,test\npictures,cat,test\na\0b,cat,test\n",
    )
    expected = {
        3: "more or fewer fields",
        4: "the label is empty",
        5: "the part is 'blind'; expected one of train, validation, test",
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
        (b"width,label\n3,cat\n", "line 1: no column path; got width, label, expected path,label"),
        (b"1.jpg,cat\n2.jpg,dog\n", "expected the names of the columns first"),
        (b"path,label,label\n1.jpg,cat,cat\n", "line 1: the column label exists more than once"),
        (b"path,label\n", "no lines below it"),
        (b"path,label\n1.jpg,cat\n2.jpg,caf\x81\n", "line 3: byte 0x81 is not utf-8"),
        (b"\xff\xfep\0a", "is not utf-16"),
        (b'path,label\n1.jpg,cat\n"2.jpg,dog\n', "line 3: "),
    ],
)
def test_a_file_that_is_not_such_a_table_is_refused_with_the_line(folder, content, message):
    assert message in refusal(folder, content)


def test_a_missing_csv_is_refused(tmp_path):
    with pytest.raises(DataError, match="can't be read: No such file"):
        list(table.rows(tmp_path / "none.csv", outside=False))


@pytest.mark.parametrize(
    "header",
    [
        "filename,class",
        "image,target",
        "File Name,Category",
        "img_path,species",
        "image_id,breed",
        "id,label",
        "image,emotion",
    ],
)
def test_columns_are_known_by_their_usual_names(folder, header):
    assert meanings(rows(folder, f"{header}\n1.jpg,cat\n2.jpg,dog\n")) == [
        ("1.jpg", "cat", None),
        ("2.jpg", "dog", None),
    ]


def test_numbers_of_rows_that_pandas_wrote_are_no_labels(folder):
    assert meanings(rows(folder, ",photo,kind\n0,1.jpg,cat\n1,2.jpg,dog\n"))[1] == ("2.jpg", "dog", None)


@pytest.mark.parametrize(
    ("column", "values", "parts"),
    [
        ("split", ("train", "val"), ("train", "validation")),
        ("Set", ("Training", "test_set"), ("train", "test")),
        ("is_valid", ("False", "True"), ("train", "validation")),
        ("is_test", ("0", "1"), ("train", "test")),
        ("split", ("0", "1"), (None, None)),
    ],
)
def test_a_column_of_parts_is_known_by_its_name_and_its_values(folder, column, values, parts):
    text = f"path,label,{column}\n1.jpg,cat,{values[0]}\n2.jpg,dog,{values[1]}\n"
    assert tuple(row.part for row in rows(folder, text)) == parts


def test_a_value_that_is_no_part_beside_parts_is_an_error_of_its_line(folder):
    assert "line 3: the part is 'blind'" in refusal(folder, "path,label,split\n1.jpg,cat,train\n2.jpg,cat,blind\n")


@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("0.0", "1.0"), ("False", "True")])
def test_one_hot_columns_are_classes_by_their_names(folder, no, yes):
    text = f"image,cat,dog,width\n1.jpg,{yes},{no},7\n2.jpg,{no},{yes},9\n"
    assert [(row.label, row.labels) for row in rows(folder, text)] == [("cat", None), ("dog", None)]


def test_one_hot_columns_with_several_ones_are_labels_of_a_multilabel_image(folder):
    text = "image,cat,dog\n1.jpg,1,1\n2.jpg,0,0\n"
    assert [row.labels for row in rows(folder, text)] == [("cat", "dog"), ()]


def test_a_row_of_zeros_beside_single_ones_has_no_label(folder):
    assert "line 3: the label is empty" in refusal(folder, "image,cat,dog\n1.jpg,1,0\n2.jpg,0,0\n")


def test_labels_with_one_label_in_each_row_are_not_multilabel(folder):
    assert [row.labels for row in rows(folder, "path,labels\n1.jpg,cat\n2.jpg,dog\n")] == [None, None]
    assert [row.labels for row in rows(folder, "path,labels\n1.jpg,cat\n2.jpg,\n")] == [("cat",), ()]


def test_chosen_columns_are_read_and_others_left(folder):
    text = "file,label,path,kind,part,fold\n1.jpg,x,2.jpg,cat,train,test\n2.jpg,y,1.jpg,dog,train,train\n"
    chosen = rows(folder, text, path="file", label="kind", part="fold")
    assert meanings(chosen) == [("1.jpg", "cat", "test"), ("2.jpg", "dog", "train")]
    with pytest.raises(DataError, match="no column 'sort' for --label-column; got file, label"):
        rows(folder, text, label="sort")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("class", "The column class is not read, as label is; --label-column chooses"),
        ("split", "The column split is not read: its values are no names of parts"),
        ("patient_id", "The column patient_id is not read. Called group"),
        ("width", ""),
    ],
)
def test_a_column_that_looks_meant_and_is_not_read_is_named(folder, caplog, column, message):
    rows(folder, f"path,label,{column}\n1.jpg,cat,7\n2.jpg,dog,8\n")
    assert caplog.messages == ([] if not message else caplog.messages)
    assert message in caplog.text


@pytest.mark.parametrize("name", ["3", "3.jpg", "pictures/3", "./pictures/3.JPG"])
def test_an_image_is_looked_for_by_its_id_without_an_ending_or_a_folder(folder, name):
    [row] = rows(folder, f"image_id,label\n{name},cat\n")
    assert (row.path, row.location.read()) == ("pictures/3.jpg", b"pictures/3.jpg")


def test_an_id_that_two_images_have_is_refused_with_both(folder):
    (folder / "more").mkdir()
    (folder / "more" / "3.png").write_bytes(b"3")
    assert "line 2: 3 may be more/3.png or pictures/3.jpg; name the folder" in refusal(folder, "id,label\n3,cat\n")
    [row] = rows(folder, "id,label\nmore/3,cat\n")
    assert row.path == "more/3.png"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_with_accents_is_the_same_name_composed_and_decomposed(folder, form):
    name = "caf\u00e9.jpg"
    (folder / unicodedata.normalize(form, name)).write_bytes(b"x")
    for other in ("NFC", "NFD"):
        [row] = rows(folder, f"path,label\n{unicodedata.normalize(other, name)},cat\n")
        assert row.location.read() == b"x"


@pytest.mark.parametrize(
    "text",
    ["path|label\n1.jpg|a\n2.jpg|b\n", "sep=;\npath;label\n1.jpg;a\n2.jpg;b\n", "\n \npath,label\n1.jpg,a\n2.jpg,b\n"],
)
def test_bars_the_line_of_excel_and_blank_lines_before_the_header_are_known(folder, text):
    assert meanings(rows(folder, text)) == [("1.jpg", "a", None), ("2.jpg", "b", None)]


def test_numbers_of_classes_are_whole_and_a_missing_label_is_none(folder):
    assert [row.label for row in rows(folder, "path,label\n1.jpg,0.0\n2.jpg,1.0\n")] == ["0", "1"]
    assert "a label is 0.5; expected" in refusal(folder, "path,label\n1.jpg,0.5\n2.jpg,1\n")
    assert "line 3: the label is NaN" in refusal(folder, "path,label\n1.jpg,a\n2.jpg,NaN\n")


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [("label", "\"['a', 'b, c']\"", "['a']"), ("labels", '"[""a"", ""b, c""]"', "[]"), ("tags", "a b", "a")],
)
def test_lists_and_tags_are_several_labels(folder, column, first, second, caplog):
    table_rows = rows(folder, f"path,{column}\n1.jpg,{first}\n2.jpg,{second}\n")
    assert table_rows[0].labels == (("a", "b") if column == "tags" else ("a", "b, c"))
    assert table_rows[1].labels == (() if second == "[]" else ("a",))


def test_a_column_of_folds_or_of_what_belongs_together_is_named(folder, caplog):
    rows(folder, "path,label,fold,lesion_id\n1.jpg,a,0,x\n2.jpg,b,1,y\n")
    assert "fold is not read" in caplog.text and "lesion_id is not read" in caplog.text
