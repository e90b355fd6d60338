"""Views: seeded augmentations of a training image, so that few photographs teach like many.

An upright image enters; each view leaves as a square of the size that the
network sees, in the place of what `preprocess` makes of the image. The clean
square itself is not a view.

    image → canvas → one affine sampling → colour → square

The canvas is the image resized by the weights' own rule, but whole and SHARPER
times as fine; all views of an image share it. What they draw hangs on the seed,
the image and the view's number alone: not on the thread, nor on other images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from regraft.core.errors import UsageError
from regraft.core.options import Options, make, require, require_choice
from regraft.core.rng import generator

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from regraft.network.preprocess import Preprocess

    Pixels = NDArray[np.uint8]

VIEW_RULES = 1  # part of a view's key: raise it whenever a pixel may come out differently

# A view is sampled from the canvas bilinearly. At the size of the clean square that smooths a second time (features of
# a view that changes nothing: cosine with the clean ones 0.988); much finer, and what is shrunk flickers.
SHARPER = 1.5

ENOUGH = 160  # pictures of a class, views counted, after which more of them no longer showed
FEW = 80  # images of a class from which views brought a linear head nothing
MOST = 16

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, as torchvision and Pillow have it


@dataclass(frozen=True, kw_only=True)
class Augmentation(Options):
    """How far a view may differ from the clean square; each is drawn evenly, and 0 (of `crop` 1) is none.

    flip:     chance that left and right change places.
    shift:    farthest move, in sides of the square, along each axis.
    rotation: greatest turn either way, in degrees.
    shear:    greatest slant either way, in degrees.
    zoom:     greatest stretch or shrinking of each axis: 0.2 is from 0.8 to 1.2.
    crop:     least share of the square's area that is shown, from anywhere in it.
    colour:   greatest change of brightness, of contrast and of saturation: 0.2 is from 0.8 to 1.2.

    What lies outside of the image shows its mirror image: a corner of one colour would be an edge that no photograph
    has, and the frozen network knows photographs.
    """

    flip: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    crop: float = 1.0
    colour: float = 0.0

    def check(self) -> None:
        """Raise UsageError for a number out of range."""
        for name, (least, greatest) in _RANGES.items():
            value = getattr(self, name)
            fit = least <= value <= greatest
            require(fit, f"augmentation {name}", value, f"{least} to {greatest}")


_RANGES = {
    "flip": (0, 1),
    "shift": (0, 1),
    "rotation": (0, 180),
    "shear": (0, 60),
    "zoom": (0, 0.9),
    "crop": (0.05, 1),
    "colour": (0, 1),
}

# Log loss of a linear head on EfficientNet-Lite0 with six views, 20 images a class. Pokémon: no views 0.52, turned and
# shifted as in the Keras book 0.46, "strong" 0.43, crops down to 0.25 or 0.35 with colour 0.41. Cats-dogs: no views
# 0.067, all of a dozen policies 0.051 to 0.062; flipping alone 0.056.
POLICIES = {
    "light": Augmentation(flip=0.5, crop=0.7, rotation=5, zoom=0.05, colour=0.1),
    "standard": Augmentation(flip=0.5, crop=0.3, rotation=15, zoom=0.1, colour=0.4),
    "strong": Augmentation(flip=0.5, crop=0.2, rotation=30, zoom=0.2, colour=0.5, shear=10, shift=0.1),
}


def find(policy: str | Mapping[str, float]) -> Augmentation:
    """Return an augmentation: a policy's name, parameters of one's own, or both: "standard,rotation=40,crop=1".

    "flip=0.5,rotation=40,shift=0.2,shear=0.2,zoom=0.2" is what the Keras book asks of its ImageDataGenerator.

    Raises UnknownName for another policy or parameter, UsageError for a value out of range.
    """
    if isinstance(policy, Mapping):
        return make(Augmentation, policy)
    first, *rest = policy.split(",")
    if "=" in first:
        first, rest = "", [first, *rest]
    else:
        require_choice("augmentation", first, tuple(POLICIES))
    base = dataclasses.asdict(POLICIES[first]) if first else {}
    return make(Augmentation, {**base, **dict(map(_parameter, rest))})


def _parameter(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise UsageError(
            f"--augmentation has {text!r}; expected a policy ({', '.join(POLICIES)}), "
            "parameters as name=number, or both, with commas between."
        ) from None


def count(per_class: Sequence[int]) -> int:
    """Return how many views of each training image are worth storing: the rule of `views="auto"`.

    per_class: the training images of each class.

    So many that the median class comes to about ENOUGH pictures, at most MOST; none from FEW images on.
    `benchmarks/views.py` shows what it rests on.
    """
    images = statistics.median(per_class)
    return 0 if images >= FEW else min(MOST, round(ENOUGH / max(images, 1)))


@dataclass(frozen=True)
class View:
    """One of the views of every image; `number` is 1 and up."""

    augmentation: Augmentation
    seed: int
    number: int

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of all that decides the view, but the image and the preprocessing."""
        far = {name: float(value) for name, value in dataclasses.asdict(self.augmentation).items()}
        decides = json.dumps([VIEW_RULES, far, self.seed, self.number], sort_keys=True)
        return hashlib.sha256(decides.encode()).hexdigest()[:16]


def wanted(number: int | str, policy: str, seed: int, per_class: Sequence[int]) -> list[View]:
    """Return the views of each training image; `number` may be "auto", which is `count`'s."""
    if number == "auto":
        number = count(per_class) if per_class else 0
    augmentation = find(policy)
    return [View(augmentation, seed, position) for position in range(1, 1 + int(number))]


def draw_views(pixels: Pixels, preprocess: Preprocess, image_id: str, views: Sequence[View]) -> list[Pixels]:
    """Return the views of an upright image, (H, W, 3) uint8: for each a square, (S, S, 3) uint8, in C order.

    May be called from several threads at once; no global generator is touched.
    """
    if not views:
        return []
    canvas = _canvas(pixels, preprocess)
    return [_square(canvas, preprocess, image_id, view) for view in views]


def _canvas(pixels: Pixels, preprocess: Preprocess) -> torch.Tensor:
    """Return the image as the rule resizes it, whole and finer: (1, 3, side, side) float32, 0 to 255."""
    import torch

    side = math.ceil(SHARPER * preprocess.size / preprocess.crop_share)
    whole = dataclasses.replace(preprocess, size=side, crop_share=1.0)(pixels)
    return torch.from_numpy(whole.astype("float32")).permute(2, 0, 1)[None]


def _square(canvas: torch.Tensor, preprocess: Preprocess, image_id: str, view: View) -> Pixels:
    from torch.nn.functional import grid_sample

    # all numbers are drawn, used or not, so that no parameter moves what another one draws
    drawn = generator(view.seed, "view", image_id, view.number).uniform(-1, 1, 13)
    grid = _grid(preprocess.size, _affine(view.augmentation, drawn[:10], preprocess.crop_share))
    sampled = grid_sample(canvas, grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    coloured = _coloured(sampled, *(1 + view.augmentation.colour * drawn[10:]))
    square: Pixels = coloured.permute(1, 2, 0).contiguous().numpy()
    return square


def _affine(augmentation: Augmentation, drawn: NDArray[np.float64], share: float) -> NDArray[np.float32]:
    """Return (2, 3): x and y in the canvas = it @ (x, y in the square, 1); -1 to 1 from edge to edge in both.

    drawn: ten numbers, -1 to 1.
    share: the side of the clean square, in sides of the canvas.
    """
    import numpy as np

    flip, area, turn, slant = drawn[:4]
    stretch, shift, corner = drawn[4:].reshape(3, 2)
    side = math.sqrt(1 - (1 - augmentation.crop) * (1 + area) / 2)
    angle, lean = math.radians(augmentation.rotation * turn), math.radians(augmentation.shear * slant)
    sides = share * side * (1 + augmentation.zoom * stretch)
    mirror = (-1 if (1 + flip) / 2 < augmentation.flip else 1, 1)
    rotate = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = rotate @ np.array([[1, math.tan(lean)], [0, 1]]) * sides * mirror
    middle = (1 - side) * corner + 2 * share * augmentation.shift * shift
    return np.column_stack([linear, middle]).astype(np.float32)


def _grid(size: int, affine: NDArray[np.float32]) -> torch.Tensor:
    """Return where in the canvas the middle of each pixel of the square lies, (1, S, S, 2)."""
    import torch

    middles = (2 * torch.arange(size) + 1) / size - 1
    by_x, by_y, start = torch.from_numpy(affine).T
    grid: torch.Tensor = middles[None, :, None] * by_x + (middles[:, None, None] * by_y + start)
    return grid[None]


def _coloured(square: torch.Tensor, brightness: float, contrast: float, saturation: float) -> torch.Tensor:
    """Return the square, (3, S, S), as uint8, after the three changes in this order, each what torchvision calls so.

    Brightness multiplies; contrast moves away from the mean grey, saturation from each pixel's own grey. As all three
    are linear, they are one matrix and one offset, and what is too bright is cut off once, at the end.
    """
    import torch

    pixels = square.reshape(3, -1)
    grey = torch.tensor([_GREY])
    mean = (grey @ pixels).mean(dtype=torch.float64)  # in float32, its last bits hang on the number of threads
    matrix = brightness * contrast * (saturation * torch.eye(3) + (1 - saturation) * grey)
    offset = (brightness * (1 - contrast) * mean).float()
    return (matrix @ pixels + offset).round_().clamp_(0, 255).to(torch.uint8).view_as(square)
