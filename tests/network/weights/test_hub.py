import json
import os
import subprocess
import sys

import pytest
import torch

from regraft.core.errors import RefusedFile, WeightsMissing
from regraft.network import catalog, weights
from regraft.network.weights import hub

# A hub of our own on this machine, in a fresh interpreter because huggingface_hub reads its settings when imported.
SCRIPT = """
import http.server, json, sys, threading
from pathlib import Path
from safetensors.torch import save_file
from regraft.core.errors import WeightsMissing
from regraft.network import catalog, listing, weights

backbone = catalog.find("test_resnet.r160_in1k")
tensors = catalog.build(backbone, num_classes=1000, seed=4).state_dict()
save_file(tensors, "served")
content, requests, results = Path("served").read_bytes(), [], {}

class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        requests.append(self.path)
        self.send_response(200)
        for name, value in {"ETag": '"abc"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(content)

    def log_message(self, *words):
        pass

def missing():
    try:
        weights.load("hub", backbone)
    except WeightsMissing as error:
        return str(error)

results["no server"] = missing()
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
results["on disk before"] = listing.weights_on_disk(backbone)
fetched = weights.load("hub", backbone)
server.shutdown()
server.server_close()
count = len(requests)
again = weights.load("hub", backbone)
results |= {
    "first request": requests[0], "requests again": len(requests) - count, "path": fetched.path,
    "on disk": listing.weights_on_disk(backbone),
    "equal": all((fetched.tensors[n] == tensors[n]).all().item() and (again.tensors[n] == tensors[n]).all().item()
                 for n in tensors),
    "names": fetched.tensors.keys() == tensors.keys(), "size": fetched.preprocess.size, "licence": fetched.licence,
}
print(json.dumps(results))
"""


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("hub"), free_port()
    settings = {"HF_HOME": str(folder / "home"), "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_DISABLE_XET": "1"}
    environment = (
        {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | settings | {"NO_PROXY": "127.0.0.1"}
    )
    command = [sys.executable, "-c", SCRIPT, str(port)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"stderr": done.stderr, "folder": str(folder)}


def test_unavailable_weights_are_reported_with_file_cache_server_and_what_works_offline(results):
    for words in ("timm/test_resnet.r160_in1k/model.safetensors", "home/hub", "127.0.0.1 does not answer"):
        assert words in results["no server"]
    for words in ("--backbone efficientnet_lite0", "--weights PATH", "--weights random"):
        assert words in results["no server"]


def test_retries_are_not_printed_to_stderr(results):
    assert "Retry" not in results["stderr"]
    assert "Traceback" not in results["stderr"]


def test_weights_are_fetched_into_the_cache_and_are_timms(results):
    assert results["first request"] == "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    assert (results["equal"], results["names"], results["size"], results["licence"]) == (True, True, 160, "apache-2.0")
    assert (results["on disk before"], results["on disk"]) == ("", results["path"])
    assert results["path"].startswith(results["folder"])


def test_what_is_in_the_cache_is_read_without_a_request(results):
    assert results["requests again"] == 0


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """The folder of torch's cache, for networks that timm fetches from a plain URL, such as Xception."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_file_in_torchs_cache_is_found(checkpoints):
    backbone = catalog.find("xception")
    expected = catalog.build(backbone, num_classes=1000, seed=2).state_dict()
    torch.save(expected, checkpoints / "xception-43020ad28.pth")
    state = torch.get_rng_state()
    loaded = weights.load("hub", backbone)
    assert torch.equal(state, torch.get_rng_state())
    assert loaded.path == str(checkpoints / "xception-43020ad28.pth")
    assert all(torch.equal(loaded.tensors[name], expected[name]) for name in expected)


def test_a_damaged_file_in_the_cache_is_refused_by_path(checkpoints):
    (checkpoints / "xception-43020ad28.pth").write_bytes(b"<html>")
    with pytest.raises(RefusedFile, match=r"xception-43020ad28\.pth.*delete it"):
        weights.load("hub", catalog.find("xception"))


def test_the_setting_to_stay_offline_is_kept(checkpoints):
    with pytest.raises(WeightsMissing, match=rf"xception-43020ad28\.pth.*{checkpoints}.*HF_HUB_OFFLINE"):
        weights.load("hub", catalog.find("xception"))


def test_a_backbone_that_timm_never_trained_is_named():
    with pytest.raises(WeightsMissing, match="timm has no pretrained weights for botnet50ts_256"):
        hub.load(catalog.find("botnet50ts_256"))
