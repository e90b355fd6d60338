from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import COLOURS, PLAIN, write_photos

import regraft
from regraft import cli
from regraft.core import options
from regraft.core.errors import UsageError
from regraft.serving.options import ServeOptions

httpx = pytest.importorskip("httpx", reason="the server is asked by httpx")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from regraft.serving import serve  # noqa: E402

ROOT = Path(__file__).parents[2]
SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, "split": "0.7/0.3", **PLAIN}
TOKEN = "a-token-of-22-letters!"


@pytest.fixture(scope="module")
def model(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("served") / "colours"
    regraft.train(photos, folder, **SMALL)
    return folder


@contextlib.contextmanager
def serving(folder, token=None, **values):
    """Yield a client of a server that runs in a thread of this process."""
    server = serve.server(folder, options.make(ServeOptions, {**PLAIN, **values}), token)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    port = listener.getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


def address(client):
    return client.base_url.host, client.base_url.port


def photo(photos, label="red", number=0):
    return (photos / label / f"{number:03}.png").read_bytes()


def expected(model, path, **words):
    (prediction,) = regraft.load(model, **PLAIN).predict(path, **words)
    return prediction.to_dict()


# What is answered


def test_an_image_as_the_body_is_answered_as_predict_prints_it(client, model, photos):
    path = photos / "red" / "000.png"
    answer = client.post("/predict", content=path.read_bytes())
    assert answer.status_code == 200
    assert answer.json() == [{**expected(model, path), "path": "image 1"}]
    assert "predict;dur=" in answer.headers["server-timing"]


def test_files_of_a_form_are_answered_in_order_by_their_names_without_folders(client, model, photos):
    paths = [photos / label / "001.png" for label in COLOURS]
    files = [("image", (f"../secret\\{path.parent.name}.png", path.read_bytes())) for path in paths]
    items = client.post("/predict?top=1", files=files).json()
    assert items == [{**expected(model, path, top=1), "path": f"{path.parent.name}.png"} for path in paths]


def test_json_with_base64_is_answered_alike(client, model, photos):
    text = base64.b64encode(photo(photos, "blue")).decode()
    (item,) = client.post("/predict", json={"images": [text]}).json()
    assert item == {**expected(model, photos / "blue" / "000.png"), "path": "image 1"}


def test_many_clients_at_once_get_each_their_own_answer(client, photos, model):
    paths = sorted(photos.rglob("*.png"))
    alone = {prediction.path: prediction for prediction in regraft.load(model, **PLAIN).predict(photos)}
    names = {path: next(name for name in alone if name.endswith(f"{path.parent.name}/{path.name}")) for path in paths}

    def ask(path):
        return client.post("/predict", content=path.read_bytes()).json()[0]["top"]

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for path, top in zip(paths * 2, pool.map(ask, paths * 2), strict=True):
            assert [each["label"] for each in top] == [label for label, _ in alone[names[path]].ranked]
            probabilities = [share for _, share in alone[names[path]].ranked]
            assert np.allclose([each["probability"] for each in top], probabilities, atol=1e-5)


def test_a_broken_image_says_why_and_leaves_the_others(client, photos):
    good, cut = photo(photos), photo(photos)[:500]
    answer = client.post("/predict", files=[("a", ("cut.png", cut)), ("b", ("good.png", good))])
    assert answer.status_code == 200
    assert [item["status"] for item in answer.json()] == ["broken", "ok"]
    alone = client.post("/predict", content=cut)
    assert alone.status_code == 422
    assert "damaged" in alone.json()[0]["error"] or "PNG" in alone.json()[0]["error"]


def test_the_model_is_described_and_no_answer_names_a_path_of_the_machine(client, model, photos):
    described = client.get("/model").json()
    assert described["classes"] == list(COLOURS)
    assert described["networks"][0]["preprocess"]["size"] == 64
    assert client.get("/models").json() == ["colours"]
    answers = [client.get(path) for path in ("/model", "/models", "/", "/metrics", "/openapi.json", "/none", "/ready")]
    answers += [client.post("/predict", content=content) for content in (photo(photos), b"no image")]
    for answer in answers:
        assert str(model.parent) not in answer.text
        assert "Traceback" not in answer.text


def test_the_page_and_its_parts_are_given_and_run_no_script_from_elsewhere(client):
    page = client.get("/")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    for part in ("page.js", "shared.js", "style.css"):
        assert part in page.text
        assert client.get(f"/{part}").status_code == 200


def test_health_and_metrics_count_what_was_asked(client, photos):
    def counts():
        lines = client.get("/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    before = counts()
    client.post("/predict", content=photo(photos))
    client.get("/not/a/path")
    after = counts()
    for name in (
        'regraft_requests_total{path="/predict",status="200"}',
        'regraft_images_total{status="ok"}',
        "regraft_predict_seconds_count",
        'regraft_predict_seconds_bucket{le="+Inf"}',
    ):
        assert after[name] == before.get(name, 0) + 1
    assert after['regraft_requests_total{path="other",status="404"}'] >= 1
    assert after["regraft_requests_waiting"] == 0
    assert client.get("/health").json()["status"] == "ok"


def test_each_path_that_is_described_exists(client):
    described = client.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method in methods:
            assert client.request(method, path).status_code not in (404, 405)


# What is refused


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b"", "image/jpeg", 400, "holds no image"),
        (b"{}", "application/json", 400, "JSON can't be used"),
        (b'{"images": "abc"}', "application/json", 400, "JSON can't be used"),
        (b'{"images": [7]}', "application/json", 400, "JSON can't be used"),
        (b'{"images": ["http://169.254.169.254/latest"]}', "application/json", 400, "URLs are not fetched"),
        (b'{"images": ["file:///etc/passwd"]}', "application/json", 400, "URLs are not fetched"),
        (b"[" * 100_000, "application/json", 400, "JSON can't be used"),
        (b"no form", "multipart/form-data", 400, "form can't be read"),
        (b"--x\r\nno header", "multipart/form-data; boundary=x", 400, ""),
    ],
)
def test_a_body_that_is_no_image_is_refused_in_one_line(client, content, kind, status, message):
    answer = client.post("/predict", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5", "9" * 5000, "", "²"])
def test_top_must_be_a_whole_number(client, top):
    assert client.post("/predict", params={"top": top}, content=b"x").status_code == 400


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "localhost.", ""])
def test_a_foreign_name_is_refused_as_a_rebound_one_would_be(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "192.168.1.7"])
def test_addresses_and_localhost_are_answered(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_another_web_page_may_not_ask_unless_it_is_named(model, photos):
    named, other = "https://shop.example", "https://evil.example"
    with serving(model, origins=named) as client:
        answers = {
            origin: client.post("/predict", content=photo(photos), headers={"origin": origin})
            for origin in (named, other, "null")
        }
        assert [answer.status_code for answer in answers.values()] == [200, 403, 403]
        assert answers[named].headers["access-control-allow-origin"] == named
        assert "access-control-allow-origin" not in answers[other].headers
        own = f"http://{client.base_url.host}:{client.base_url.port}"
        assert client.get("/model", headers={"origin": own}).status_code == 200


def test_without_the_token_only_the_empty_page_and_the_health_are_given(model, photos):
    with serving(model, token=TOKEN) as client:
        for path in ("/", "/page.js", "/health", "/ready"):
            assert client.get(path).status_code in (200, 503)
        for words in (
            {},
            {"authorization": f"Bearer {TOKEN}x"},
            {"authorization": TOKEN},
            {"authorization": "Bearer ü"},
        ):
            encoded = {name: value.encode() for name, value in words.items()}
            assert client.get("/model", headers=encoded).status_code == 401
            assert client.post("/predict", content=photo(photos), headers=encoded).status_code == 401
        words = {"authorization": f"Bearer {TOKEN}"}
        assert client.post("/predict", content=photo(photos), headers=words).status_code == 200


def test_too_much_is_refused_before_it_is_read_or_decoded(model, photos):
    with serving(model, max_mb=0.1, max_images=2, max_megapixels=0.01) as client:
        assert client.post("/predict", content=b"x" * 200_000).status_code == 413
        assert client.post("/predict", content=iter([b"x" * 60_000] * 3)).status_code == 413  # of unknown length
        files = [("image", ("a.png", photo(photos)))] * 3
        assert client.post("/predict", files=files).status_code in (400, 413)
        bomb = io.BytesIO()
        Image.new("1", (4000, 4000)).save(bomb, "PNG")
        answer = client.post("/predict", content=bomb.getvalue())
        assert answer.status_code == 422
        assert "4000 x 4000 pixels" in answer.json()[0]["error"]
        assert client.post("/predict", content=photo(photos)).status_code == 200


def begun(client, photos, missing=10):
    """Send a request but for its last bytes; return the connection, and those bytes."""
    data = photo(photos)
    connection = socket.create_connection(address(client))
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + data[:-missing])
    return connection, data[-missing:]


def until_waiting(client, count):
    while f"regraft_requests_waiting {count}\n" not in client.get("/metrics").text:
        pass


def everything(connection):
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_who_comes_when_the_line_is_full_is_told_to_come_again(model, photos):
    with serving(model, queue=1) as client:
        connection, rest = begun(client, photos)
        with connection:
            until_waiting(client, 1)
            refused = client.post("/predict", content=photo(photos))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            connection.sendall(rest)
            assert everything(connection).startswith(b"HTTP/1.1 200")
        assert client.post("/predict", content=photo(photos)).status_code == 200


def test_a_body_that_does_not_arrive_in_time_and_one_that_breaks_off_give_their_place_back(model, photos):
    with serving(model, queue=1, timeout=0.5) as client:
        connection, _ = begun(client, photos)
        with connection:
            assert everything(connection).startswith(b"HTTP/1.1 408")
        connection, _ = begun(client, photos)
        until_waiting(client, 1)
        connection.close()
        until_waiting(client, 0)
        assert client.post("/predict", content=photo(photos)).status_code == 200


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200_000, b"\x16\x03\x01\x02\x00\x01", b"A" * (1 << 21)]
)
def test_a_head_without_end_or_of_another_protocol_ends_the_connection(client, head):
    with socket.create_connection(address(client)) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head)
        assert not everything(connection).startswith(b"HTTP/1.1 2")
    assert client.get("/health").status_code == 200


# Several models, and one that is replaced


def test_each_model_of_a_folder_is_served_by_its_name(model, photos, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(model, tmp_path / name)
    with serving(tmp_path) as client:
        assert client.get("/models").json() == ["one", "two"]
        assert client.post("/predict", content=photo(photos)).status_code == 404
        assert client.post("/predict?model=two", content=photo(photos)).status_code == 200
        assert client.get("/model?model=../one").status_code == 404


def test_a_model_that_is_replaced_serves_from_then_on_and_no_request_is_lost(model, photos, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    (tmp_path / "photos").mkdir()
    other = write_photos(tmp_path / "photos", per_class=4)
    (other / "red").rename(other / "crimson")
    with serving(folder) as client:
        assert "red" in client.get("/model").json()["classes"]
        regraft.train(other, folder, overwrite=True, **SMALL)
        statuses = set()
        while "crimson" not in client.get("/model").json()["classes"]:
            statuses.add(client.post("/predict", content=photo(photos)).status_code)
        (item,) = client.post("/predict", content=photo(photos)).json()
        assert {each["label"] for each in item["top"]} == {"blue", "crimson", "green"}
        assert statuses <= {200}
        (folder / "model.json").write_text("damaged")  # which changes nothing
        assert client.post("/predict", content=photo(photos)).status_code == 200


# The command


def test_the_container_installs_what_the_project_asks_for_in_the_same_versions():
    project, container = ((ROOT / name).read_text("utf-8") for name in ("pyproject.toml", "Dockerfile"))
    packages = re.findall(r'"([a-z-]+>=[0-9.]+)"', container)
    assert len(packages) >= 14
    assert all(f'"{package}' in project for package in packages)
    assert not re.search(r"torch|USER root", container.partition("FROM")[2])


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_the_command_prints_an_address_with_a_token_and_answers_what_it_took_before_it_stops(model, photos):
    words = [sys.executable, "-m", "regraft", "serve", model, "--host", "0.0.0.0", "--port", "0", "--engine", "torch"]
    process = subprocess.Popen(
        [*words, "--precision", "float32"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        address, token = process.stdout.readline().strip().split("/#token=")
        url, words = address.replace("0.0.0.0", "127.0.0.1"), {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{url}/model", trust_env=False).status_code == 401
        data = photo(photos)
        half = threading.Event()

        def body():
            yield data[:-10]
            half.wait()
            yield data[-10:]

        with concurrent.futures.ThreadPoolExecutor(1) as pool, httpx.Client(headers=words, trust_env=False) as client:
            sent = pool.submit(client.post, f"{url}/predict", content=body(), timeout=60)
            while "regraft_requests_waiting 1\n" not in client.get(f"{url}/metrics").text:
                pass
            process.send_signal(signal.SIGTERM)
            half.set()
            assert sent.result().status_code == 200
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_what_is_wrong_with_the_words_is_said_in_one_line(model, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", str(model), "--port", port, "--engine", "torch"]) == 2
    assert "Choose another --port" in capsys.readouterr().err
    assert cli.main(["serve", str(tmp_path)]) == 4
    assert "model" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_in_python_it_serves_until_a_signal_and_gives_the_signals_back(model):
    script = f"""
import signal, regraft
before = signal.getsignal(signal.SIGINT)
regraft.serve({str(model)!r}, port=0, engine="torch", precision="float32")
print(signal.getsignal(signal.SIGINT) is before)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert httpx.get(f"{process.stdout.readline().strip()}health", trust_env=False).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "True\n"
    finally:
        process.kill()


@pytest.mark.slow
def test_no_request_that_fits_the_description_is_answered_otherwise_than_described(model, tmp_path):
    pytest.importorskip("schemathesis", reason="requests are drawn by schemathesis, in the extra `test`")
    with serving(model) as client:
        words = ["--max-examples", "100", "--seed", "1", "--phases", "coverage,fuzzing"]
        words += ["--exclude-checks", "positive_data_acceptance"]  # a schema can't say what is an image
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "words", [{"port": 70_000}, {"token": "short"}, {"queue": 0}, {"timeout": 0.0}, {"workers": 0}, {"max_mb": -1.0}]
)
def test_options_out_of_range_are_refused(words):
    with pytest.raises(UsageError):
        options.make(ServeOptions, words)


def test_a_token_is_never_repeated_in_an_error():
    with pytest.raises(UsageError) as error:
        options.make(ServeOptions, {"token": "secret"})
    assert "secret" not in str(error.value)
