"""HEIC and AVIF, encoded here by libheif's and libavif's own encoders."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tests.data.images import encode, on_white, waves

from regraft.data.decode import BrokenImage, decode, read_header

pillow_heif = pytest.importorskip("pillow_heif")

PHOTO = waves(96, 64)


def heic(*images, primary=0, exif=None, **options):
    """Return a HEIC file of these pictures, as near to them as its colours allow."""
    file = pillow_heif.HeifFile()
    for image in images:
        added = file.add_from_pillow(image if isinstance(image, Image.Image) else Image.fromarray(image))
        if exif is not None:
            added.info["exif"] = exif.tobytes()
    out = io.BytesIO()
    file.save(out, quality=-1, chroma=444, primary_index=primary, **options)
    return out.getvalue()


def avif(image, **options):
    return encode(image, "AVIF", quality=100, subsampling="4:4:4", **options)


def test_a_heic_has_its_pixels():
    data = heic(PHOTO)
    assert read_header(data) == ("HEIC", (96, 64), 3, ())
    np.testing.assert_allclose(decode(data), PHOTO, atol=2)


def test_a_photograph_in_tiles_as_telephones_save_it_has_all_of_them():
    large = waves(300, 260)
    np.testing.assert_allclose(decode(heic(large, tile_size=128)), large, atol=2)


def test_an_avif_has_its_pixels():
    data = avif(PHOTO)
    assert read_header(data) == ("AVIF", (96, 64), 3, ())
    np.testing.assert_allclose(decode(data), PHOTO, atol=3)


@pytest.mark.parametrize("brand", [b"mif1", b"msf1"])
def test_the_brands_that_fit_tell_avif_from_heic_where_the_first_is_general(brand):
    avif = encode(PHOTO, "AVIF")
    assert avif[8:12] == b"avif" and b"avif" in avif[16:32]
    assert read_header(avif[:8] + brand + avif[12:]).format == "AVIF"
    data = heic(PHOTO)
    assert read_header(data[:8] + b"mif1" + data[12:]).format == "HEIC"


TURNED = {  # EXIF 2.3, tag 274: what NumPy has to do to a picture that is stored so
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_a_turned_photograph_is_upright_and_not_turned_twice(kind, orientation):
    """The encoders write both the container's turn and EXIF's, as telephones do."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = heic(PHOTO, exif=exif) if kind == "HEIC" else avif(PHOTO, exif=exif)
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    np.testing.assert_allclose(decode(data), TURNED[orientation](PHOTO), atol=3)


def test_exif_alone_turns_no_avif():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = avif(PHOTO, exif=exif)
    at = data.index(b"irot")
    np.testing.assert_allclose(decode(data[: at + 4] + b"\0" + data[at + 5 :]), PHOTO, atol=3)


def test_of_several_pictures_the_primary_one_is_taken_and_that_is_told():
    colours = [np.full((64, 64, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    data = heic(*colours, primary=1)
    np.testing.assert_allclose(decode(data), colours[1], atol=2)
    assert read_header(data).remarks == ("the primary one of several pictures",)


def test_alpha_is_laid_on_white():
    alpha = np.tile(np.arange(0, 192, 2, dtype=np.uint8), (64, 1))
    picture = np.dstack([PHOTO, alpha])
    for data in (heic(picture), avif(picture)):
        np.testing.assert_allclose(decode(data), on_white(PHOTO, alpha), atol=3)


def test_ten_bits_become_the_eight_high_ones_and_that_is_told():
    deep = np.repeat(np.arange(0, 65536, 512, dtype=np.uint16)[None, :, None], 3, axis=2).repeat(64, axis=0)
    file = pillow_heif.from_bytes("RGB;16", (128, 64), deep.tobytes())
    out = io.BytesIO()
    file.save(out, quality=-1, chroma=444)
    assert read_header(out.getvalue()).remarks == ("10 bits, reduced to 8",)
    np.testing.assert_allclose(decode(out.getvalue()), deep >> 8, atol=1)


def test_a_profile_is_applied():
    from tests.data.test_colour import P3, from_rgb, icc

    flat = np.full((64, 96, 3), (60, 180, 90), np.uint8)
    image = Image.fromarray(flat)
    image.info["icc_profile"] = icc(b"RGB ", 2.2, P3)
    for data in (heic(image), avif(flat, icc_profile=image.info["icc_profile"])):
        np.testing.assert_allclose(decode(data), from_rgb(flat, P3, 2.2), atol=3)
        assert read_header(data).remarks == ("colour profile test, converted to sRGB",)


@pytest.mark.parametrize("filled", [False, True], ids=["cut", "zeros"])
@pytest.mark.parametrize("tiles", [0, 128], ids=["one picture", "tiles"])
def test_a_heic_cut_anywhere_is_broken_also_as_an_unfinished_download_full_of_zeros(tiles, filled):
    data = heic(waves(200, 180), **({"tile_size": tiles} if tiles else {}))
    for end in np.linspace(1, len(data) - 2, 80).astype(int):
        with pytest.raises(BrokenImage):
            decode(data[:end] + bytes((len(data) - end) * filled))


def test_an_avif_cut_anywhere_is_broken():
    data = encode(PHOTO, "AVIF")
    for end in range(1, len(data), 7):
        with pytest.raises(BrokenImage):
            decode(data[:end])


def test_the_library_is_imported_only_for_such_a_file_and_other_programs_plug_ins_are_left_alone():
    script = (
        "import sys, io; from PIL import Image; from regraft.data.decode import decode\n"
        "file = io.BytesIO(); Image.new('RGB', (4, 4)).save(file, 'PNG'); decode(file.getvalue())\n"
        "assert 'pillow_heif' not in sys.modules\n"
        "decode(sys.stdin.buffer.read()); Image.init()\n"
        "assert 'pillow_heif' in sys.modules and 'HEIF' not in Image.OPEN\n"
    )
    subprocess.run([sys.executable, "-c", script], input=heic(PHOTO), check=True)
