"""Name what is on photographs: python example.py PHOTO..."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

folder = Path(__file__).parent
labels = (folder / "labels.txt").read_text("utf-8").splitlines()
model = torch.export.load(folder / "model.pt2").module()

for path in sys.argv[1:]:
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
    (probabilities,) = model(torch.from_numpy(np.array(on_white)[None])).tolist()
    ranked = sorted(zip(probabilities, labels, strict=True), reverse=True)
    print(path, *(f"{label} {100 * probability:.1f} %" for probability, label in ranked[:3]), sep="  ")
