"""A LiteRT file holds its labels where Android's tools look for them, and its example resizes as regraft does."""

from __future__ import annotations

import itertools
import shutil
import struct
import subprocess
import zipfile
from importlib.resources import files as resources

import numpy as np
import pytest
from tests.conftest import PLAIN
from tests.exports.test_whole import photograph

import regraft
from regraft.data.decode import decode
from regraft.network.preprocess import Preprocess

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, "views": 0, **PLAIN}


@pytest.fixture(scope="module")
def exported(photos, tmp_path_factory):
    for module in ("litert_torch", "ai_edge_quantizer"):
        pytest.importorskip(module, reason="--to litert needs litert-torch, which is gigabytes")
    folder = tmp_path_factory.mktemp("litert")
    model = regraft.train(photos, folder / "model", **SMALL).model
    return model, regraft.export(model, folder / "out", to="litert", check=photos).folder


def test_the_labels_are_in_an_archive_at_its_end(exported):
    _, folder = exported
    with zipfile.ZipFile(folder / "model.tflite") as archive:
        assert archive.read("labels.txt").decode().splitlines() == ["blue", "green", "red"]


def test_mediapipe_names_what_the_model_names(exported, photos):
    mediapipe = pytest.importorskip("mediapipe", reason="Android's tools are tried by MediaPipe")
    from mediapipe.tasks.python import BaseOptions, vision

    model, folder = exported
    rule = model.trunk.preprocess
    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=str(folder / "model.tflite")), max_results=1)
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for path in sorted(photos.glob("*/000.png")):
            image = mediapipe.Image(mediapipe.ImageFormat.SRGB, rule(decode(path.read_bytes())))
            (best,) = classifier.classify(image).classifications[0].categories
            assert best.category_name == path.parent.name
            assert best.score == pytest.approx(model.predict_proba(path).max(), abs=0.005)


MAIN = """
import java.io.*
fun main(args: Array<String>) {
    val data = DataInputStream(BufferedInputStream(System.`in`))
    val colour = args[4].split(",").map { it.toInt() }
    val input = Input(args[0].toInt(), args[1].toInt(), args[2], args[3] == "true", colour)
    repeat(data.readInt()) {
        val width = data.readInt()
        val height = data.readInt()
        val bytes = input.of(IntArray(width * height) { data.readInt() }, width, height)
        System.out.write(ByteArray(bytes.remaining()).also { bytes.get(it) })
    }
    System.out.flush()
}
"""
SIZES = [(1, 1), (1, 7), (9, 1), (3, 40), (64, 64), (65, 64), (100, 77), (500, 375), (333, 1000)]


@pytest.mark.slow
def test_kotlin_makes_the_input_that_the_preprocessing_makes(tmp_path):
    compiler = shutil.which("kotlinc")
    if compiler is None:
        pytest.skip("Kotlin's compiler, kotlinc, is not on this machine")
    (tmp_path / "Main.kt").write_text(MAIN)
    source = resources("regraft.exports").joinpath("templates", "litert", "Input.kt")
    program = tmp_path / "input.jar"
    subprocess.run([compiler, source, tmp_path / "Main.kt", "-include-runtime", "-d", program], check=True)
    images = [photograph(*size) for size in SIZES]
    data = struct.pack(">i", len(images)) + b"".join(map(argb, images))
    for resize, interpolation, share in itertools.product(
        ("crop", "pad", "squash"), ("bilinear", "bicubic"), (0.875, 1.0, 1.3)
    ):
        rule = Preprocess(
            size=64, resize=resize, interpolation=interpolation, crop_share=share, background=(10, 200, 30)
        )
        colour = ",".join(map(str, rule.background if resize == "pad" else (0, 0, 0)))
        words = ["64", str(rule.target), resize, str(interpolation == "bicubic").lower(), colour]
        output = subprocess.run(["java", "-jar", program, *words], input=data, capture_output=True, check=True).stdout
        for image, made in zip(images, np.frombuffer(output, np.uint8).reshape(-1, 64, 64, 3), strict=True):
            differences = np.abs(made.astype(int) - rule(image))
            assert differences.max() <= 2 and np.mean(differences > 0) < 0.03, (resize, interpolation, image.shape)


def argb(image):
    """Return an image as Android has it: width, height, and a number of 32 bits for each pixel."""
    red, green, blue = np.moveaxis(image.astype(">u4"), 2, 0)
    pixels = (255 << 24 | red << 16 | green << 8 | blue).astype(">u4")
    return struct.pack(">ii", image.shape[1], image.shape[0]) + pixels.tobytes()
