"""From a source to a folder of features or predictions, on every executor: the same ids, bits and errors as one run."""

import functools
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter

import numpy as np
import pytest
from pyarrow import concat_tables, parquet
from tests.conftest import PLAIN, write_photos

import regraft
from regraft.cli import main
from regraft.core import plugins
from regraft.core.errors import DataError, UsageError
from regraft.features import executors

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, **PLAIN}
FLAGS = ["--backbone", "test_resnet", "--weights", "random", "--size", "64", "--engine", "torch"]
FLAGS += ["--precision", "float32"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Photographs with a copy, a broken one, an empty one, and a text file."""
    folder = write_photos(tmp_path_factory.mktemp("odd"), per_class=6)
    shutil.copy(folder / "blue" / "000.png", folder / "green" / "copy.png")
    whole = (folder / "red" / "001.png").read_bytes()
    (folder / "red" / "short.png").write_bytes(whole[:1000])
    (folder / "red" / "empty.jpg").write_bytes(b"")
    (folder / "red" / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def written(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "local"
    run(source, folder)
    return folder


def run(source, folder, executor="local", **options):
    done = regraft.extract(source, folder, on=executor, unit_rows=5, **SMALL, **options)
    assert done.images == {"used": 19, "ignored": 1, "broken": 2}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def table(folder):
    return concat_tables([parquet.read_table(path) for path in sorted(folder.glob("part-*"))])


def test_the_rows_and_the_bits_are_those_of_one_run(source, written):
    index = regraft.read(source, conflicts="keep")
    features = regraft.extract(index, **SMALL)
    expected = {row.path: (row.id, row.label, row.status) for row in features.index}
    rows = table(written).to_pylist()
    assert {row["path"]: (row["id"] or "", row["label"], row["status"]) for row in rows} == expected
    by_path = {row["path"]: row["features"] for row in rows}
    for row, values in zip(features.rows, features, strict=True):
        assert np.array_equal(np.float32(by_path[row.path]), values)


@pytest.mark.parametrize(
    "executor",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "spark")) for name in plugins.names(executors)],
)
def test_every_executor_writes_the_same_bytes(source, written, tmp_path, executor):
    if executor != "local":
        pytest.importorskip({"ray": "ray", "spark": "pyspark"}[executor])
    run(source, tmp_path / "out", executor)
    assert files(tmp_path / "out") == files(written)


def test_what_is_committed_is_not_computed_again(source, written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "out")
    gone, kept = sorted(folder.glob("_done/*"))[:2]
    gone.unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    run(source, folder)
    changed = [path.stem for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == [f"part-{gone.stem}"]
    assert kept.exists()
    assert files(folder) == files(written)


def test_few_broken_images_are_rows_and_the_folder_is_a_source_to_train_on(source, tmp_path):
    done = regraft.extract(regraft_tar(source, tmp_path / "s.tar"), tmp_path / "out", **SMALL)
    assert done.images == {"used": 18, "ignored": 0, "broken": 0}
    assert (tmp_path / "out" / "_SUCCESS").exists()
    report = regraft.train(tmp_path / "out", tmp_path / "model", split="0.6/0.2/0.2", engine="torch")
    assert report.model.classes == ("blue", "green", "red")
    assert report.accuracy > 0.5


def regraft_tar(source, path):
    """A shard, as WebDataset writes it, of the sound photographs."""
    with tarfile.open(path, "w") as tar:
        for number, photo in enumerate(sorted(source.glob("*/0*.png"))):
            for ending, content in (("cls", photo.parent.name.encode()), ("png", photo.read_bytes())):
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def test_predictions_are_those_of_predict(source, written, tmp_path, capsys):
    regraft.train(write_photos(tmp_path / "photos"), tmp_path / "model", split="0.6/0.2/0.2", **SMALL)
    photos = source / "blue"
    folder = tmp_path / "answers"
    asked = ["--coverage", "0.9", "--false-alarms", "0.2", "--engine", "torch"]
    assert main(["predict", str(tmp_path / "model"), str(photos), "-o", f"{folder}/", *asked]) == 0
    assert "probabilities of 6 images" in capsys.readouterr().out
    model = regraft.load(tmp_path / "model", engine="torch")
    for row in table(folder).to_pylist():
        [expected] = model.predict(photos / row["path"], top=1, coverage=0.9, false_alarms=0.2)
        assert row["prediction"] == expected.label
        assert max(row["probabilities"]) == pytest.approx(expected.ranked[0][1], abs=1e-6)
        assert row["novelty"] == pytest.approx(expected.novelty, rel=0.02)  # features of other batches
        assert (row["unknown"], tuple(row["prediction_set"])) == (expected.unknown, expected.prediction_set)


def test_more_broken_images_than_are_allowed_are_refused_when_all_are_written(source, written, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["extract", str(source), "-o", f"{out}/", "--unit-rows", "5", "--max-broken", "0", *FLAGS]) == 3
    assert "2 of 21 images are broken" in capsys.readouterr().err
    assert files(out) == files(written)
    assert not (out / "_SUCCESS").exists()


def test_labels_may_be_in_the_names_when_a_folder_of_features_is_trained_on(source, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for photo in source.glob("*/0*.png"):
        shutil.copy(photo, flat / f"{photo.parent.name}_{photo.name}")
    regraft.extract(flat, tmp_path / "out", **SMALL)
    with pytest.raises(DataError, match="have no labels; --label-from says"):
        regraft.train(tmp_path / "out", tmp_path / "model", split="0.6/0.2/0.2", engine="torch")
    options = {"split": "0.6/0.2/0.2", "engine": "torch", "label_from": "{label}_#.png"}
    assert regraft.train(tmp_path / "out", tmp_path / "model", **options).model.classes == ("blue", "green", "red")


def test_a_picture_under_two_labels_is_ignored_when_a_folder_of_features_is_trained_on(written, tmp_path):
    report = regraft.train(written, tmp_path / "model", split="0.6/0.2/0.2", engine="torch", max_broken=0.2)
    names = {row["path"]: row["id"] for row in table(written).to_pylist()}
    assert names["blue/000.png"] == names["green/copy.png"]
    assert names["blue/000.png"] not in report.model.images
    assert len(report.model.images) == 17


def test_another_listing_or_network_is_refused_and_nothing_changes(source, written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "out")
    before = files(folder)
    with pytest.raises(UsageError, match="holds the results of another job: listing and units are different"):
        regraft.extract(source, folder, unit_rows=7, **SMALL)
    with pytest.raises(UsageError, match="holds the results of another job: network is different"):
        regraft.extract(source, folder, unit_rows=5, **{**SMALL, "size": 96})
    assert files(folder) == before


def test_a_shard_that_can_t_be_read_is_a_failed_unit(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match=r"1 of 1 units could not be read.*\n.*bad\.tar is damaged"):
        regraft.extract(tmp_path / "bad.tar", tmp_path / "out", **SMALL)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--on", "slurm"], "No value of --on 'slurm'"),
        (["--address", "ray://x:1"], "expected none with --on local"),
        (["--unit-rows", "0"], "--unit-rows is 0"),
        (["--label-from", "{label}_#.png"], "train takes --label-from of it"),
    ],
)
def test_wrong_words_are_told_before_anything_is_read(tmp_path, capsys, flags, message):
    assert main(["extract", str(tmp_path / "none"), "-o", str(tmp_path / "out/"), *FLAGS, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_cluster_that_can_t_be_reached_is_told_in_a_line(source, tmp_path, capsys):
    pytest.importorskip("ray")
    flags = [*FLAGS, "--on", "ray", "--address", "127.0.0.1:1"]
    assert main(["extract", str(source), "-o", f"{tmp_path}/out/", *flags]) == 2
    assert "Nothing answers at 127.0.0.1:1" in capsys.readouterr().err


def test_a_killed_run_goes_on_and_ends_as_the_one_that_was_not(source, written, tmp_path):
    """The process kills itself when it is about to write its second commit record."""
    script = (
        "import os, signal, sys, regraft\n"
        "from regraft.core import remote\n"
        "write, names = remote.write, []\n"
        "def killing(target, content):\n"
        "    names.append(target.path)\n"
        "    if sum('_done' in name for name in names) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(target, content)\n"
        "remote.write = killing\n"
        f"regraft.extract(sys.argv[1], sys.argv[2], unit_rows=5, **{SMALL!r})\n"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "out" / "_done").iterdir())) == 1
    assert len(files(tmp_path / "out")) == 2
    run(source, tmp_path / "out")
    assert files(tmp_path / "out") == files(written)


class Faulty:
    """An object store's application that, while `share` is above 0, refuses requests, or breaks off in an answer."""

    def __init__(self, app):
        self.app, self.share, self.random, self.refused, self.broken_off = app, 0.0, random.Random(0), 0, 0
        self.requests = Counter()

    def __call__(self, environ, start_response):
        self.requests[environ["REQUEST_METHOD"], environ["PATH_INFO"]] += 1
        draw = self.random.random()
        if draw < self.share / 2:
            self.refused += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]
        answer = b"".join(self.app(environ, start_response))
        if draw < self.share and environ["REQUEST_METHOD"] == "GET" and answer:
            self.broken_off += 1
            return [answer[: len(answer) // 2]]  # the header promised all of it
        return [answer]


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket on an object store on this machine, and the application that serves it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    server._server.app = Faulty(server._server.app)
    _, port = server.get_host_and_port()
    own = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**own, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            patch.setenv(name, value)
        from pyarrow import fs

        fs.S3FileSystem(allow_bucket_creation=True, endpoint_override=f"http://127.0.0.1:{port}").create_dir("photos")
        yield "s3://photos", server._server.app
    server.stop()


def test_an_object_store_is_read_and_written_as_a_disk_is(source, bucket, tmp_path):
    from pyarrow import fs

    bucket, _ = bucket
    shard = regraft_tar(source, tmp_path / "s.tar")
    fs.copy_files(str(shard), f"{bucket}/in/s.tar")
    done = regraft.extract(f"{bucket}/in", f"{bucket}/out", **SMALL)
    assert done.images["used"] == 18
    here = functools.partial(regraft.extract, shard, **SMALL)
    here(tmp_path / "out")
    system, path = fs.FileSystem.from_uri(f"{bucket}/out")
    for name, content in files(tmp_path / "out").items():
        assert system.open_input_stream(f"{path}/{name}").read() == content
    assert regraft.extract(f"{bucket}/in", f"{bucket}/out", **SMALL).images == done.images
    report = regraft.train(f"{bucket}/out", tmp_path / "model", split="0.6/0.2/0.2", engine="torch")
    assert report.model.classes == ("blue", "green", "red")


def test_an_object_store_that_refuses_and_breaks_off_gives_the_same_bytes(source, bucket, tmp_path):
    from pyarrow import fs

    url, store = bucket
    shard = regraft_tar(source, tmp_path / "s.tar")
    for number in range(2):
        fs.copy_files(str(shard), f"{url}/shards/{number}.tar")
    regraft.extract(f"{url}/shards", f"{url}/whole", **SMALL)
    store.share = 0.3
    try:
        regraft.extract(f"{url}/shards", f"{url}/hindered", **SMALL)
    finally:
        store.share = 0.0
    assert store.refused and store.broken_off
    assert store.requests["GET", "/photos/whole/_network/network-0.safetensors"] == 1, "a file is one request"
    system, path = fs.FileSystem.from_uri(url)
    written = [info for info in system.get_file_info(fs.FileSelector(f"{path}/whole")) if "part-" in info.path]
    assert len(written) == 2
    for info in written:
        hindered = info.path.replace("/whole/", "/hindered/")
        with system.open_input_stream(info.path) as one, system.open_input_stream(hindered) as other:
            assert one.read() == other.read()


def ordered(values):
    return {**values, "files": {name: sorted(files, key=str) for name, files in values["files"].items()}}


@pytest.mark.parametrize(
    "executor",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "local")) for name in plugins.names(executors)],
)
@pytest.mark.parametrize("conflicts", ["ignore", "keep"])
def test_what_is_in_a_source_is_the_same_unit_by_unit(source, executor, conflicts):
    whole, units = (ordered(regraft.inspect(source, conflicts=conflicts, on=on).to_dict()) for on in (None, executor))
    del whole["notes"], units["notes"]
    assert units == whole
    assert units["copies"] == units["conflicts"] == 1


def test_copies_are_found_across_shards_and_a_shard_that_is_damaged_is_told(source, tmp_path, capsys):
    for number in range(2):
        regraft_tar(source, tmp_path / f"{number}.tar")
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 1000)
    assert main(["inspect", str(tmp_path), "--on", "local"]) == 0
    text = capsys.readouterr().out
    assert "36 used, 0 ignored, 0 broken" in text
    assert "18 pictures in more than one file" in text
    assert "1 unit could not be read." in text


def test_an_inspection_by_units_has_a_page_and_its_lists_end(source, tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.data.inspect_units.LISTED", 1)
    inspection = regraft.inspect(source, on="local")
    assert inspection.to_dict()["broken"] == 2
    assert len(inspection.to_dict()["files"]["broken"]) == 1
    inspection.save(tmp_path / "page.html")
    assert "Near-duplicates are not looked for" in (tmp_path / "page.html").read_text()


def test_a_conflict_that_is_an_error_and_words_that_units_are_not_read_by(source, capsys):
    assert main(["inspect", str(source), "--on", "local", "--conflicts", "error"]) == 3
    assert "1 picture in" in capsys.readouterr().err
    assert main(["inspect", str(source), "--on", "local", "--label-from", "{label}_#.png"]) == 2
    assert main(["inspect", str(source), "--on", "local", "--deep"]) == 2


JOINED = {**SMALL, "backbone": "test_resnet@64+test_resnet@96"}
del JOINED["size"]


def test_joined_networks_write_their_features_side_by_side_and_are_trained_on(tmp_path):
    photos = write_photos(tmp_path / "photos", per_class=6)
    regraft.extract(photos, tmp_path / "out", unit_rows=10, **JOINED)
    features = {row["path"]: row["features"] for row in table(tmp_path / "out").to_pylist()}
    each = [regraft.extract(photos, **{**SMALL, "size": size}) for size in (64, 96)]
    for row, *values in zip(each[0].rows, *each, strict=True):
        assert np.array_equal(np.float32(features[row.path]), np.concatenate(values))
    model = regraft.train(tmp_path / "out", tmp_path / "model", split="0.6/0.2/0.2", refit="off", engine="torch").model
    for number, rows in enumerate(each):
        train = [values for row, values in zip(rows.rows, rows, strict=True) if model.part_of(row.id) == "train"]
        assert model.scales[number] == pytest.approx(np.sqrt(np.mean(np.abs(train))), rel=1e-5)  # of square roots
    options = {"split": "0.6/0.2/0.2", "refit": "off", "engine": "torch", "near_duplicates": "ignore"}
    in_place = regraft.train(tmp_path / "out", tmp_path / "in place", memory=0, **options).model
    assert in_place.scales == model.scales
    assert regraft.load(tmp_path / "model", engine="torch").predict(photos / "red" / "000.png", top=1)
