"""Pictures that Pillow makes from a seed: scenes as photographs have them, bottles and lids on white, and versions."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps


def scene(seed, size=(240, 180)):
    """A picture with large shapes, small ones and grain, as a photograph has."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (*cells, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC))
        for cells in ((4, 6), (13, 20), (67, 100))
    ]
    return Image.fromarray(np.average(layers, axis=0, weights=(5, 3, 1)).astype(np.uint8))


def product(seed):
    """A lid (even seeds) or a bottle (odd ones) on white: one shape, other colours and letters."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(image)
    colour, light = (tuple(int(level) for level in rng.integers(20, 235, 3)) for _ in range(2))
    letters = "".join(rng.choice(list("ABDEFHKLMNRSTXZ"), 3))
    if seed % 2:
        draw.rounded_rectangle((72, 70, 128, 185), 10, fill=colour)
        draw.rectangle((92, 30, 108, 75), fill=colour)
        draw.rectangle((72, 105, 128, 145), fill=light)
        draw.text((100, 125), letters, fill=colour, anchor="mm", font=ImageFont.load_default(22))
    else:
        draw.ellipse((30, 30, 170, 170), fill=colour)
        draw.ellipse((52, 52, 148, 148), outline=light, width=3)
        draw.text((100, 100), letters, fill=light, anchor="mm", font=ImageFont.load_default(36))
    return image


def saved(image, kind="JPEG", **options):
    """Return what is read after the image was saved."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file).convert("RGB")


def cropped(image, left, top, right, bottom):
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


VERSIONS = {
    "quality 80": lambda image: saved(image, quality=80),
    "quality 30": lambda image: saved(image, quality=30),
    "half as large": lambda image: saved(image.resize((image.width // 2, image.height // 2)), quality=90),
    "larger": lambda image: image.resize((2 * image.width, 2 * image.height), Image.Resampling.BICUBIC),
    "another aspect ratio": lambda image: image.resize((150, 200)),
    "as a PNG": lambda image: saved(image, "PNG"),
    "mirrored": ImageOps.mirror,
    "cropped by 5 %": lambda image: cropped(image, 0.02, 0.04, 0.97, 0.99),
    "cropped by 10 %": lambda image: cropped(image, 0.07, 0.0, 0.97, 0.9),
    "mirrored and cropped": lambda image: saved(cropped(ImageOps.mirror(image), 0.05, 0.02, 1.0, 0.97), quality=80),
}
