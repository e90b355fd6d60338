"""Pictures in memory are decoded by the rule of every file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from regraft.core.errors import DataError
from regraft.data.decode import decode
from regraft.data.read import read_inputs

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)


def decoded(inputs):
    return [decode(row.location.read()) for row in read_inputs(inputs).used]


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def test_an_array_a_pil_image_and_bytes_give_the_pixels_of_a_file(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    image = Image.fromarray(PIXELS)
    data = encoded(image, format="PNG")
    for inputs in (tmp_path / "a.png", PIXELS, image, data, bytearray(data), memoryview(data), [PIXELS, image, data]):
        for pixels in decoded(inputs):
            np.testing.assert_array_equal(pixels, PIXELS)


def test_an_array_of_several_images_gives_a_row_each_and_rows_are_numbered():
    images = np.stack([PIXELS, 255 - PIXELS])
    index = read_inputs([images, PIXELS])
    assert [row.path for row in index] == ["image 1", "image 2", "image 3"]
    np.testing.assert_array_equal(decode(index.rows[1].location.read()), 255 - PIXELS)


def test_grey_arrays_have_three_equal_channels():
    (pixels,) = decoded(PIXELS[:, :, 0])
    np.testing.assert_array_equal(pixels, np.repeat(PIXELS[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_a_pil_image_of_any_mode_is_decoded_as_its_file_is(mode):
    image = (
        Image.fromarray(PIXELS).convert("L").convert(mode) if mode[0] in "IF" else Image.fromarray(PIXELS).convert(mode)
    )
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "I", "F") else "PNG"
    (pixels,) = decoded(image)
    np.testing.assert_array_equal(pixels, decode(encoded(image, format=kind)))


def test_a_photograph_taken_sideways_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        (pixels,) = decoded(image)
    np.testing.assert_array_equal(pixels, np.rot90(PIXELS, -1))


@pytest.mark.parametrize("array", [PIXELS.astype(float), PIXELS[..., :2], PIXELS[None, None], PIXELS[0, 0]], ids=repr)
def test_an_array_of_another_shape_or_type_is_refused(array):
    with pytest.raises(DataError, match=r"expected \(H, W, 3\)"):
        read_inputs(array)


def test_an_array_of_paths_is_a_list_of_paths(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert len(read_inputs(np.array([str(tmp_path / "a.png")])).used) == 1


def test_bytes_of_no_image_are_broken_not_an_error():
    (row,) = read_inputs(b"no image").rows
    assert row.status == "broken"
