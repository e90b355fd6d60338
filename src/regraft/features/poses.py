"""Poses: fixed views of an image, over which a prediction may be the mean (test-time augmentation).

An upright image enters; each pose leaves as a square of the size that the network sees. The first is the mirror image
of what `preprocess` makes of the image; then come its four corners, out of a square that is somewhat larger, and their
mirror images. With the image as it is that makes ten (Krizhevsky et al. 2012, section 4.1).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from regraft.network.preprocess import Preprocess

POSE_RULES = 1  # part of a pose's key: raise it whenever a pixel may come out differently
MOST = 10  # inputs of an image, that of `preprocess` among them
LARGER = 8 / 7  # least side of the square that corners are cut out of, in sides of what the network sees
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Pose:
    """One of the poses of every image; `number` is 1 to 9."""

    number: int

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of all that decides the pose, but the image and the preprocessing."""
        return hashlib.sha256(json.dumps(["pose", POSE_RULES, self.number]).encode()).hexdigest()[:16]

    @property
    def corner(self) -> tuple[int, int] | None:
        """From which corner it is cut, (down, across); None: the middle."""
        return CORNERS[(self.number - 2) % 4] if self.number > 1 else None

    @property
    def mirrored(self) -> bool:
        """Whether left and right change places."""
        return self.number == 1 or self.number > 5


def poses(count: int) -> list[Pose]:
    """Return the poses of which there are `count`, 1 to 10, with the image as it is."""
    return [Pose(number) for number in range(1, count)]


def draw_poses(pixels: np.ndarray, preprocess: Preprocess, wanted: Sequence[Pose]) -> list[np.ndarray]:
    """Return the poses of an upright image, (H, W, 3) uint8: for each a square, (S, S, 3) uint8, in C order."""
    if not wanted:
        return []
    import numpy as np

    size = preprocess.size
    side = max(preprocess.target, math.ceil(LARGER * size))
    cut = any(pose.corner for pose in wanted)
    whole = dataclasses.replace(preprocess, size=side, crop_share=1.0)(pixels) if cut else None
    inputs = []
    for pose in wanted:
        if whole is None or pose.corner is None:
            square = preprocess(pixels)
        else:
            top, left = (end * (side - size) for end in pose.corner)
            square = whole[top : top + size, left : left + size]
        inputs.append(np.ascontiguousarray(square[:, ::-1] if pose.mirrored else square))
    return inputs
