"""Which format a file has, by its first bytes: one table of all that are read, or refused by name.

The first bytes of a file enter, its format leaves. `decode` reads what has a
reader; `read` asks whether a file that can't be read is meant to be an image;
`sources/archive` asks for archives.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

HEAD = 1024  # bytes of a file that are enough to recognise its format

DECODE_RULES = 2  # the version of the rules that most images are decoded by; part of every store's key, so it stays

MAX_PIXELS = 178_956_970  # Pillow's default error limit (1 GiB / 4 / 3, doubled), whatever a program has set it to


class BrokenImage(Exception):
    """The bytes are not an image that is read here, or a damaged one; the text is the reason, on one line."""


class Format(NamedTuple):
    """A file format and how to recognise it."""

    name: str
    signature: bytes  # a pattern of the first bytes; empty for a format that has none
    endings: str = ""  # of its files' names
    reader: str = ""  # the class that reads its pixels; empty: the format is refused
    kind: Literal["image", "document", "other"] = "image"  # a document may hold an image, or something else
    advice: str = ""  # what to do, where that is not to convert it

    @property
    def refusal(self) -> str:
        """Why a file of this format is not read."""
        if self.kind == "other":
            return f"{self.name}, not an image" + (f"; {self.advice}" if self.advice else "")
        return f"{self.name} is not read; convert it to JPEG or PNG"


ZIP = Format("a ZIP archive", rb"PK(\x03\x04|\x05\x06)", kind="other")
GZIP = Format("a gzip archive", rb"\x1f\x8b", kind="other")

_TIFF = rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0"  # the last two are wrong, but exist
_SVG = rb"(?i)(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg"
_HTML = rb"(?i)(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head|<body)"

_AVIF = rb"....ftyp(avi[fs]|m[is]f1.{4}(.{4}){0,6}avi[fs])"  # or a general brand, and AVIF among those that fit

# The first match counts.
FORMATS = (
    Format("JPEG", rb"\xff\xd8\xff", "jpg jpeg jpe jfif", "PIL.JpegImagePlugin.JpegImageFile"),
    Format("PNG", rb"\x89PNG", "png apng", "PIL.PngImagePlugin.PngImageFile"),
    Format("WebP", rb"RIFF....WEBP", "webp", "PIL.WebPImagePlugin.WebPImageFile"),
    Format("BMP", rb"BM....\0\0\0\0", "bmp dib", "PIL.BmpImagePlugin.BmpImageFile"),
    Format("BMP", rb"BM", "", "PIL.BmpImagePlugin.BmpImageFile", kind="other"),  # a text may begin so, too
    Format("TIFF", _TIFF, "tif tiff cr2 dng nef", "PIL.TiffImagePlugin.TiffImageFile"),  # also cameras' raw files
    Format("GIF", rb"GIF8", "gif", "PIL.GifImagePlugin.GifImageFile"),
    Format("EPS", rb"%!PS-Adobe.{1,8}EPSF|\xc5\xd0\xd3\xc6", "eps"),
    Format("Photoshop (PSD)", rb"8BPS", "psd"),
    Format("AVIF", _AVIF, "avif", "PIL.AvifImagePlugin.AvifImageFile"),
    Format("HEIC", rb"....ftyp(hei|hev|mif1|msf1)", "heic heif hif", "pillow_heif.HeifImageFile"),
    Format("ICO or CUR", rb"\0\0[\x01\x02]\0"),
    Format("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "jp2 j2k"),
    Format("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL ", "jxl"),
    Format("DirectDraw (DDS)", rb"DDS "),
    Format("PNM (PPM, PGM, PBM)", rb"P[1-7]\s", "pnm ppm pgm pbm"),
    Format("TGA", b"", "tga"),
    Format("PostScript", rb"%!PS", kind="document"),
    Format("PDF", rb"%PDF", kind="document"),
    Format("SVG", _SVG, kind="document"),
    Format("DICOM", rb".{128}DICM", "dcm dicom"),
    Format("NIfTI", rb"(\x5c\x01\0\0|\0\0\x01\x5c).{340}n[i+]1\0", "nii"),
    Format("a web page (HTML)", _HTML, kind="other"),
    Format("a Git LFS pointer", rb"version https://git-lfs", kind="other", advice="`git lfs pull` fetches the image"),
    Format("a film (MP4 or QuickTime)", rb"....(ftyp|moov|mdat)", kind="other"),
    Format("a film (Matroska or WebM)", rb"\x1a\x45\xdf\xa3", kind="other"),
    Format("a film (MPEG)", rb"\0\0\x01[\xb3\xba]", kind="other"),
    Format("a film or a sound (RIFF)", rb"RIFF", kind="other"),
    Format("a NumPy array", rb"\x93NUMPY", kind="other"),
    Format("an HDF5 file", rb"\x89HDF\r\n", kind="other"),
    ZIP,
    GZIP,
)

_SIGNATURES = tuple((re.compile(entry.signature, re.DOTALL), entry) for entry in FORMATS if entry.signature)

_IMAGE_NAME = re.compile(
    rf"[^/]\.({'|'.join(' '.join(entry.endings for entry in FORMATS).split())})"
    r"(\?[^/]*)?$",  # as in a web address: 1.jpg?w=1200
    re.IGNORECASE,
)


def recognise(data: bytes) -> Format | None:
    """Return the format of a file by its first HEAD bytes; None if it is none of FORMATS."""
    head = data[:HEAD]
    return next((entry for signature, entry in _SIGNATURES if signature.match(head)), None)


def refusal(data: bytes) -> str:
    """Return why a file with these first bytes, for which there is no reader, is not read."""
    if not data:
        return "empty file"
    entry = recognise(data)
    return entry.refusal if entry else f"not an image that is read here ({', '.join(readable())})"


def readable() -> list[str]:
    """Return the names of the formats that are read."""
    return list(dict.fromkeys(entry.name for entry in FORMATS if entry.reader))


def has_image_name(path: str) -> bool:
    """Whether a file's name ends like an image format's, read here or not."""
    return _IMAGE_NAME.search(path) is not None


def unread_by_name(path: str) -> str:
    """Return the format that a file's name ends like, if it is not read here; else an empty text."""
    ending = path.rpartition(".")[2].lower()
    return next((entry.name for entry in FORMATS if ending in entry.endings.split() and not entry.reader), "")
