"""Seconds from a command to its first result, each a fresh process, the interpreter's start included.

Cold: nothing is stored and the network is not converted yet. Warm: the same command has been run before; for features,
on other photographs. The peers have no store, so that theirs is one and the same; random weights, as only time counts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _bench

FEW = 8  # photographs in the first batch, half of them of each class

# some installations' torchvision can't be imported before this; it takes no time where it can
TORCHVISION = "from regraft.network.workaround_torchvision_nms import ensure_torchvision; ensure_torchvision()"
TIMM = f"""
{TORCHVISION}
import sys
import numpy, timm, torch
from PIL import Image
network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
images = torch.stack([transform(Image.open(path).convert("RGB")) for path in sys.argv[1:]])
with torch.inference_mode():
    numpy.save(sys.argv[1] + ".npy", network(images).numpy())
"""
FASTAI = f"""
{TORCHVISION}
import sys
import timm
from fastai.vision.all import *
network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
files = [Path(path) for path in sys.argv[1:]]
loaders = ImageDataLoaders.from_path_func(files[0].parent, files, lambda path: path.name[:3], item_tfms=Resize(224),
                                          batch_tfms=Normalize.from_stats(*imagenet_stats), bs=4)
learner = Learner(loaders, network, loss_func=CrossEntropyLossFlat())
with learner.no_bar():
    np.save(sys.argv[1] + ".npy", learner.get_preds(dl=loaders.test_dl(files), act=noop)[0].numpy())
"""
KERAS = """
import sys, numpy, keras
network = keras.applications.MobileNetV2(weights=None, include_top=False, pooling="avg")  # of Lite0's size
images = numpy.stack([keras.utils.img_to_array(keras.utils.load_img(path, target_size=(224, 224)))
                      for path in sys.argv[1:]])
numpy.save(sys.argv[1] + ".npy", network.predict(images / 127.5 - 1, verbose=0))
"""
IMPORTS = {
    "timm": f"{TORCHVISION}; import torch, timm",
    "Keras": "import keras",
    "fastai": f"{TORCHVISION}; import fastai.vision.all",
}


def python(script: str, *words: Any) -> None:
    """Run a script in a fresh interpreter; raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-c", script, *map(str, words)], check=True, capture_output=True)


class Workspace:
    """A folder with a cache and a model of its own, and photographs for every run."""

    def __init__(self, photographs: Path, scratch: Path) -> None:
        self.scratch, self.cache, self.model = scratch, scratch / "cache", scratch / "model"
        cats, dogs = (sorted((photographs / "train" / name).glob("*.jpg")) for name in ("cat", "dog"))
        self._left = list(zip(cats, dogs, strict=True))

    def photographs(self, count: int = FEW) -> Path:
        """Return a new folder of photographs that no run has seen."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        for name, number in (("cat", 0), ("dog", 1)):
            (folder / name).mkdir()
            for pair in self._left[: count // 2]:
                shutil.copy(pair[number], folder / name)
        del self._left[: count // 2]
        return folder

    def regraft(self, *words: Any) -> dict[str, float]:
        return {"seconds": _bench.regraft(*words, cache=self.cache)[0]}

    def features(self, *, cold: bool) -> dict[str, float]:
        if cold:
            shutil.rmtree(self.cache, ignore_errors=True)
        return self.regraft("extract", self.photographs(), "-o", self.scratch / "features.npz", "--quiet")


def main() -> None:
    arguments = _bench.parser(__doc__).parse_args()
    with _bench.photographs(arguments.data, "cats-dogs") as folder, tempfile.TemporaryDirectory() as scratch:
        about = _bench.header()
        workspace = Workspace(folder, Path(scratch))
        learned = workspace.photographs(80)
        workspace.regraft("train", learned, "-o", workspace.model, "--quiet")
        few = sorted(workspace.photographs().rglob("*.jpg"))
        again = ["train", learned, "-o", Path(scratch) / "again", "--head", "mlp", "--quiet", "--seed"]
        seeds = iter(range(1, 1000))
        tables: dict[str, dict[str, Callable[[], Any]]] = {
            f"start: features of {FEW} photographs": {
                "regraft extract, warm": lambda: workspace.features(cold=False),
                "regraft extract, cold": lambda: workspace.features(cold=True),
                "timm": lambda: python(TIMM, *few),
                "Keras": lambda: python(KERAS, *few),
                "fastai": lambda: python(FASTAI, *few),
            },
            "start: other commands, and the peers' imports alone": {
                "regraft --help": lambda: workspace.regraft("--help"),
                "regraft predict, one photograph": lambda: workspace.regraft("predict", workspace.model, few[0]),
                "regraft train, warm store": lambda: workspace.regraft(*again, next(seeds)),
                **{f"import {name}": lambda script=script: python(script) for name, script in IMPORTS.items()},
            },
        }
        for title, contestants in tables.items():
            _table(title, contestants, arguments, about)


def _table(
    title: str, contestants: dict[str, Callable[[], Any]], arguments: argparse.Namespace, about: dict[str, Any]
) -> None:
    results = []
    for name, function in contestants.items():
        function()  # once uncounted: files in memory, networks converted
        results.append(_bench.timed(name, function, arguments.repeats))
    _bench.compare(title, results[0], results[1:], output=arguments.output, about=about)


if __name__ == "__main__":
    main()
