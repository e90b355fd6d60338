"""What the verbs return, in a session, in a notebook and in a file."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest

import regraft
from regraft.core.errors import UsageError
from regraft.core.results import Result

KINDS = (
    "Inspection",
    "Audit",
    "Comparison",
    "Tuned",
    "Sweep",
    "Prediction",
    "Gallery",
    "Suggestions",
    "Report",
    "Features",
    "History",
)


@pytest.mark.parametrize("name", KINDS)
def test_a_result_has_one_line_a_page_json_and_files(results, name, tmp_path):
    result = results[name]
    assert type(result) is getattr(regraft, name) and isinstance(result, Result)
    assert repr(result).startswith(f"<{name}") and "\n" not in repr(result)
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    result.save(tmp_path / "result.html")
    result.save(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text("utf-8")) == {"made_by": "regraft", **data}
    page = (tmp_path / "result.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>") and "<h1" in page
    assert not re.search(r"(src|srcset|href)=\"(?!data:|#)", page), "it needs nothing beside it"


@pytest.mark.parametrize("name", KINDS)
def test_a_notebook_shows_the_page_in_a_frame_of_its_own(results, name):
    shown = results[name]._repr_html_()
    (page,) = re.findall(r'^<iframe srcdoc="([^"]*)"', shown)
    base = '<base href="about:srcdoc">'  # links within the page stay in the frame
    assert html.unescape(page) == results[name].html().replace("<head>", f"<head>{base}")


@pytest.mark.parametrize("name", KINDS)
def test_another_ending_is_refused_with_those_that_work(results, name, tmp_path):
    with pytest.raises(UsageError, match=r"expected a name that ends in \.html or \.json"):
        results[name].save(tmp_path / "result.docx")
    assert list(tmp_path.iterdir()) == []


def test_features_are_saved_with_their_numbers(results, tmp_path):
    features = results["Features"]
    features.save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as saved:
        np.testing.assert_array_equal(saved["features"], np.asarray(features))


def test_a_foreign_file_is_never_replaced_and_an_own_one_only_when_told(results, tmp_path):
    for name, foreign in (("page.html", b"<html>mine"), ("data.json", b"{}"), ("numbers.npz", b"PK")):
        path = tmp_path / name
        path.write_bytes(foreign)
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="already exists and was not written by regraft"):
                results["Features"].save(path, overwrite=overwrite)
        assert path.read_bytes() == foreign
        path.unlink()
        results["Features"].save(path)
        with pytest.raises(UsageError, match="Add --overwrite to replace it"):
            results["Features"].save(path)
        results["Features"].save(path, overwrite=True)
