"""A request's body becomes images: names and bytes, within the limits; nothing is decoded here, and no URL is fetched.

The body is one image; or `multipart/form-data` with a file for each; or JSON, {"images": ["<base64>", ...]}.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from regraft.core.text import printable
from regraft.serving.options import ServerOptions

JSON_SHAPE = 'expected {"images": ["<base64 of an image file>", ...]}'


class Image(NamedTuple):
    """The bytes of an image file, and what the answer calls it."""

    name: str
    data: bytes


def announced_size(request: Request, limits: ServerOptions) -> int:
    """Return how many bytes the body may have; raise HTTPException if it says that they are too many."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return limits.max_bytes
    if int(length) > limits.max_bytes:
        raise _too_large(limits)
    return int(length)


async def read_images(request: Request, limits: ServerOptions) -> list[Image]:
    """Return the images of a request; raise HTTPException if it is too large, too slow, or holds none."""
    try:
        async with asyncio.timeout(limits.timeout):
            body = await _body(request, limits)
    except TimeoutError:
        raise HTTPException(408, f"The request took longer than {limits.timeout:g} s to arrive.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The request ended before its body did.") from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images = await _of_form(request, body, limits)
    elif kind == "application/json":
        images = _of_json(body)
    else:
        images = [Image("image 1", body)] if body else []
    if not images:
        raise HTTPException(400, "The request holds no image; expected the bytes of an image file as its body.")
    if len(images) > limits.max_images:
        raise HTTPException(413, f"{len(images)} images were sent; expected {limits.max_images} or fewer.")
    return images


async def _body(request: Request, limits: ServerOptions) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.max_bytes:
            raise _too_large(limits)
    return bytes(body)


def _too_large(limits: ServerOptions) -> HTTPException:
    return HTTPException(413, f"The request is larger than {limits.max_mb:g} MB; send fewer or smaller images.")


class _InMemory(MultiPartParser):
    """A form whose files never touch the disk: the body is in memory already."""

    spool_max_size = 0  # for Python's temporary file: never roll over


async def _of_form(request: Request, body: bytes, limits: ServerOptions) -> list[Image]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    most = limits.max_images
    try:
        parser = _InMemory(request.headers, stream(), max_files=most, max_fields=most, max_part_size=limits.max_bytes)
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"The form can't be read: {error.message}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    try:
        return [Image(_name(file.filename, number), await file.read()) for number, file in enumerate(files, 1)]
    finally:
        await form.close()


def _name(filename: str | None, number: int) -> str:
    """Return a file's name without its folders, which are the sender's own business."""
    name = printable((filename or "").replace("\\", "/").rpartition("/")[2])[:200]
    return name or f"image {number}"


def _of_json(body: bytes) -> list[Image]:
    try:
        content: Any = json.loads(body)
        texts = content["images"]
        if not isinstance(texts, list):
            raise TypeError
        return [Image(f"image {number}", base64.b64decode(text, validate=True)) for number, text in enumerate(texts, 1)]
    except binascii.Error:
        raise HTTPException(400, f"An image is not base64; {JSON_SHAPE}. URLs are not fetched.") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise HTTPException(400, f"The JSON can't be used; {JSON_SHAPE}.") from None
