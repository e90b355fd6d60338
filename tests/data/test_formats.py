import io
import tarfile
import zipfile

import pytest
from PIL import Image, features

from regraft.data.formats import FORMATS, GZIP, ZIP, has_image_name, readable, recognise, refusal


def saved(kind):
    """The bytes of a small picture, as Pillow writes them."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (1, 2, 3)).save(file, kind)
    return file.getvalue()


WRITTEN = {  # by Pillow's names
    "JPEG": "JPEG",
    "MPO": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "GIF": "GIF",
    "EPS": "EPS",
    "ICO": "ICO or CUR",
    "JPEG2000": "JPEG 2000",
    "DDS": "DirectDraw (DDS)",
    "PPM": "PNM (PPM, PGM, PBM)",
    "PDF": "PDF",
    **({"AVIF": "AVIF"} if features.check("avif") else {}),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_pillow_writes_is_recognised_by_its_first_bytes(kind):
    entry = recognise(saved(kind))
    assert entry is not None
    assert entry.name == WRITTEN[kind]
    assert bool(entry.reader) == (entry.name in {"JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "AVIF"})


def test_archives_are_recognised_also_without_members():
    empty, full = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(empty, "w"):
        pass
    with zipfile.ZipFile(full, "w") as archive:
        archive.writestr("1.jpg", b"1")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz"):
        pass
    assert recognise(empty.getvalue()) is recognise(full.getvalue()) is ZIP
    assert recognise(packed.getvalue()) is GZIP


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"8BPS\0\1", "Photoshop (PSD) is not read; convert it to JPEG or PNG"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg>", "SVG is not read; convert it to JPEG or PNG"),
        (b"\xef\xbb\xbf<!DOCTYPE HTML><title>Not found", "a web page (HTML), not an image"),
        (b"\0\0\0\x18ftypmp42", "a film (MP4 or QuickTime), not an image"),
        (b"RIFF\0\0\0\0WAVE", "a film or a sound (RIFF), not an image"),
        (b"PK\3\4", "a ZIP archive, not an image"),
        (b"words", "not an image that is read here (JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, HEIC)"),
    ],
)
def test_a_refusal_says_what_a_file_is_and_what_is_read(data, reason):
    assert refusal(data) == reason


@pytest.mark.parametrize("data", [b"BMW is a car\n", b"%PDF-1.7", b"<svg>", b"%!PS\n", b"PK\3\4", b"words"])
def test_what_may_be_no_image_is_not_taken_for_one(data):
    entry = recognise(data)
    assert entry is None or entry.kind != "image"


def test_only_images_have_a_reader_and_each_name_has_one_reader():
    assert len({(entry.name, entry.reader) for entry in FORMATS if entry.reader}) == len(readable())


ENDINGS = "jpg JPEG jpe jfif png apng webp bmp dib tif tiff cr2 dng nef gif eps psd avif heic heif jp2 j2k jxl pbm tga"


@pytest.mark.parametrize("ending", ENDINGS.split())
def test_the_endings_of_image_formats_are_known_in_any_case(ending):
    assert has_image_name(f"a/1.{ending}")


@pytest.mark.parametrize("path", ["1.jpg", "a/2.JPEG", "3.jpg?w=1200", "4.psd", "x.y.tiff", "5.heic"])
def test_image_names_are_known_by_their_ending(path):
    assert has_image_name(path)


@pytest.mark.parametrize("path", ["jpg", "notes.txt", "a.jpg/notes", ".jpg", "1.jpg.txt", "cat/.png"])
def test_other_names_are_not_image_names(path):
    assert not has_image_name(path)
