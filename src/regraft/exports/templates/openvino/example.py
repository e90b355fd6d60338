"""Name what is on photographs: python example.py PHOTO..."""

import sys
from pathlib import Path

import numpy as np
import openvino
from PIL import Image, ImageOps

folder = Path(__file__).parent
labels = (folder / "labels.txt").read_text("utf-8").splitlines()
model = openvino.compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

for path in sys.argv[1:]:
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
    (probabilities,) = model([np.asarray(on_white)[None]])[0]
    ranked = sorted(zip(probabilities, labels, strict=True), reverse=True)
    print(path, *(f"{label} {100 * probability:.1f} %" for probability, label in ranked[:3]), sep="  ")
