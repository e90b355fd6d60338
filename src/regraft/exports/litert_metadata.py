"""What Android's tools look for in a LiteRT file: that its input is an image, and the labels of its output.

The metadata are a flatbuffer of its own inside the model's; the files that they name are a zip archive at its end.
Source: metadata_schema.fbs, 1.1.0, of TensorFlow Lite Support, whose field numbers stand below.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
LABELS = "labels.txt"
IMAGE_PROPERTIES, RGB, AXIS_LABELS = 2, 1, 2  # of the union ContentProperties, of ColorSpaceType, of AssociatedFileType


def described(model: bytes, inputs: Sequence[str], output: str, files: Mapping[str, str]) -> bytes:
    """Return a LiteRT model with metadata and associated files, LABELS among them, by name."""
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    for buffer in tree.buffers:
        if buffer.offset > 1:  # the quantiser's weights stand behind the flatbuffer
            buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    tree.buffers.append(schema.BufferT(data=list(_metadata(inputs, output))))
    tree.metadata = [*(tree.metadata or []), schema.MetadataT(name=NAME, buffer=len(tree.buffers) - 1)]
    tree.signatureDefs[0].outputs[0].name = output
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output()) + _archive(files)


def _archive(files: Mapping[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:  # not compressed: Android's reader maps it
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # of a date that is always the same
    return data.getvalue()


def _metadata(inputs: Sequence[str], output: str) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    images = [_image(builder, name) for name in inputs]
    labels = _table(builder, 5, {0: builder.CreateString(LABELS)}, {2: AXIS_LABELS})
    classes = _table(builder, 7, {0: builder.CreateString(output), 6: _vector(builder, [labels])})
    graph = _table(builder, 7, {2: _vector(builder, images), 3: _vector(builder, [classes])})
    root = _table(builder, 8, {3: _vector(builder, [graph]), 7: builder.CreateString("1.0.0")})
    builder.Finish(root, IDENTIFIER)
    return bytes(builder.Output())


def _image(builder: Any, name: str) -> int:
    """Write TensorMetadata of an image."""
    properties = _table(builder, 2, {}, {0: RGB})
    content = _table(builder, 3, {1: properties}, {0: IMAGE_PROPERTIES})
    return _table(builder, 7, {0: builder.CreateString(name), 3: content})


def _table(builder: Any, fields: int, offsets: Mapping[int, int], bytes: Mapping[int, int] | None = None) -> int:
    builder.StartObject(fields)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, value in (bytes or {}).items():
        builder.PrependInt8Slot(field, value, 0)
    table: int = builder.EndObject()
    return table


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    vector: int = builder.EndVector()
    return vector
