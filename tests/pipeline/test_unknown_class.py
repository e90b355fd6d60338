"""A folder of pictures of nothing in particular is no class, but teaches what is unknown."""

import numpy as np
import pytest
from PIL import Image
from tests.conftest import PLAIN, write_photos

import regraft
from regraft.core.errors import UnknownName, UsageError
from regraft.data.index import Index, Row
from regraft.model import evidence
from regraft.pipeline import unknown_class

SMALL = {"backbone": "test_resnet", "size": 64, "weights": "random", "views": 0, "split": "0.7/0.3", **PLAIN}


def striped(path, seed):
    """Write a picture like those of the classes, of one colour, with stripes."""
    rng = np.random.default_rng(seed)
    pixels = np.array(((30, 60, 200), (40, 180, 60), (200, 40, 40))[seed % 3]) + rng.integers(-30, 30, (40, 40, 3))
    pixels[:: 3 + seed % 2] += 50
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = write_photos(tmp_path_factory.mktemp("source"))
    for number in range(25):
        striped(folder / "other" / f"{number}.png", number)
    return folder


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    report = regraft.train(source, root / "model", unknown_class="other", store=root / "store", **SMALL)
    return report, root


def test_it_is_none_of_the_classes_and_its_pictures_are_told_from_theirs(trained, tmp_path):
    report, root = trained
    model = regraft.load(root / "model", **PLAIN)
    assert model.classes == ("blue", "green", "red")
    assert {row.label for row in report.index} == {"blue", "green", "red"}
    assert sum(row.reason == unknown_class.REASON for row in report.source) == 25
    for number in range(40):
        striped(tmp_path / f"{number}.png", 100 + number)
    new = regraft.predict(model, tmp_path, false_alarms=0.1, store=root / "store")
    untaught = evidence.Evidence(**{name: getattr(model.evidence, name) for name in evidence.MEASURED})
    assert np.mean([item.unknown for item in new]) >= 0.8
    assert model.evidence.strangers is not None
    assert untaught.strangers is None


def test_the_report_measures_it_on_pictures_that_did_not_teach_and_evaluate_does_so_again(source, trained):
    report, root = trained
    assert 0 < report.strangers.n < 25
    assert report.strangers.roc_auc > 0.9
    again = regraft.evaluate(regraft.load(root / "model", **PLAIN), source, store=root / "store")
    assert again.strangers.n == report.strangers.n
    assert again.strangers.roc_auc == pytest.approx(report.strangers.roc_auc, abs=0.05)


def test_false_alarms_stay_at_their_rate(trained, tmp_path):
    _, root = trained
    model = regraft.load(root / "model", **PLAIN)
    new = regraft.predict(model, write_photos(tmp_path / "new", per_class=40, seed=9), false_alarms=0.1, store=root)
    assert np.mean([item.unknown for item in new]) <= 0.25


def test_the_same_run_again_fits_nothing_and_other_pictures_of_the_class_are_another_run(source, trained):
    _, root = trained
    written = (root / "model" / "model.json").stat().st_mtime_ns
    regraft.train(source, root / "model", unknown_class="other", store=root / "store", **SMALL)
    assert (root / "model" / "model.json").stat().st_mtime_ns == written
    for number in range(77, 82):  # one of five does not teach
        striped(source / "other" / f"{number}.png", number)
    with pytest.raises(UsageError, match="holds the model of another run"):
        regraft.train(source, root / "model", unknown_class="other", store=root / "store", **SMALL)
    for number in range(77, 82):
        (source / "other" / f"{number}.png").unlink()


def test_a_name_of_no_class_is_refused(source, tmp_path):
    with pytest.raises(UnknownName, match="othr"):
        regraft.train(source, tmp_path / "model", unknown_class="othr", store=tmp_path / "store", **SMALL)


def test_with_labels_in_python_it_is_refused(source):
    paths = sorted(source.glob("*/*.png"))
    with pytest.raises(UsageError, match="--unknown-class"):
        regraft.Classifier(unknown_class="other", **SMALL).fit(paths, [path.parent.name for path in paths])


def test_a_version_of_a_picture_in_a_class_neither_teaches_nor_measures():
    rows = [
        Row(path="cat/1", location=None, id="a", label="cat"),
        Row(path="other/1", location=None, id="b", label="other", version_of="a"),
        *(Row(path=f"other/{number}", location=None, id=f"{number}", label="other") for number in range(2, 60)),
    ]
    index = unknown_class.set_aside(Index(tuple(rows)), "other")
    teach, measure = unknown_class.taught(index, 0), unknown_class.measured(index, 0)
    assert sorted(row.path for row in (*teach, *measure)) == sorted(row.path for row in rows[2:])
    assert 3 < len(measure) < 25
