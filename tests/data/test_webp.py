import numpy as np
import pytest
from PIL import Image
from tests.data.images import encode, on_white

from regraft.data import webp
from regraft.data.decode import BrokenImage, decode, read_header

KINDS = {
    "VP8 ": {"quality": 50},
    "VP8L": {"lossless": True},
    "VP8X": {"quality": 50, "exif": b"Exif\0\0II*\0"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (97, 81), (300, 5), (16383, 1)])
def test_the_size_is_that_of_the_picture(kind, size):
    data = encode(Image.new("RGB", size, (90, 120, 30)), "WebP", **KINDS[kind])
    assert data[12:16] == kind.encode()
    assert webp.size(data) == size


def test_what_begins_otherwise_has_no_size():
    assert webp.size(b"RIFF\0\0\0\0WEBPnone") == (0, 0)


def test_one_that_would_take_too_much_memory_is_refused_before_it_is_opened():
    """Of the pixels there is not even a beginning: to open it would fail."""
    header = b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (13_377 - 1).to_bytes(3, "little") * 2
    for use in (read_header, decode):
        with pytest.raises(BrokenImage, match=r"to decode 13377 x 13377 pixels of WebP takes 3\.0 GB of memory, more"):
            use(header)


def test_sound_lossless_files_of_odd_and_even_lengths_are_whole():
    rng = np.random.default_rng(5)
    lengths = set()
    for side in range(1, 40):
        picture = rng.integers(0, 256, (side, 11, 4), dtype=np.uint8)
        data = encode(picture, "WebP", lossless=True, exact=True)
        lengths.add(data[data.index(b"VP8L") + 4] % 2)
        np.testing.assert_array_equal(decode(data), on_white(picture[..., :3], picture[..., 3]))
    assert lengths == {0, 1}
