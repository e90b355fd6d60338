"""A page for browsers: a folder for any static web server, which works offline too, and `one.html`, all in one file.

The model is that of `onnx`. The runtime is onnxruntime-web's; its 14 MB do not come with regraft, but from the folder
that `--runtime` names.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

from regraft.core import files
from regraft.core.errors import UsageError
from regraft.core.text import listed, printable
from regraft.exports.folder import render
from regraft.exports.formats import Plan, onnx

PRECISIONS, MODULES, EXTRA, VERSIONS = onnx.PRECISIONS, onnx.MODULES, onnx.EXTRA, onnx.VERSIONS
load = onnx.load

SCRIPT = "ort.wasm.min.js"
RUNTIME = (SCRIPT, "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = ("index.html", "style.css", "app.js")
SHOWN_CLASSES = 3  # in the title


def check(runtime: Path | None) -> None:
    """Raise UsageError unless `--runtime` is onnxruntime-web."""
    _runtime(runtime)


def write(plan: Plan, folder: Path) -> None:
    """Write the model, the runtime, the page in parts, and the page in one file."""
    runtime = _runtime(plan.runtime)
    onnx.write(plan, folder)
    for name in RUNTIME:
        files.write_file(folder / name, (runtime / name).read_bytes())
    plan.about["runtime"] = _version(folder / SCRIPT)
    files.write_file(folder / "icon.png", _icon())
    values = {"title": _title(plan.about["classes"]), "about": _json(plan.about), "inline": None}
    for name in (*PAGE, "manifest.webmanifest"):
        files.write_file(folder / name, render(f"web/page/{name}", values).encode())
    inline = {name: (folder / name).read_text("utf-8") for name in ("style.css", "app.js")}
    inline |= {SCRIPT: (folder / SCRIPT).read_text("utf-8").replace("</script", "<\\/script")}
    inline |= {name: _packed(folder / name) for name in (onnx.FILE, *RUNTIME[1:])}
    files.write_file(folder / "one.html", render("web/page/index.html", {**values, "inline": inline}).encode())
    files.write_file(folder / "sw.js", render("web/page/sw.js", _kept(folder)).encode())


def _runtime(folder: Path | None) -> Path:
    """Return the folder with onnxruntime-web's files: the one given, or `dist` in it, or in the package in it."""
    how = "Unpack it with: npm pack onnxruntime-web && tar xzf onnxruntime-web-*.tgz, and name the folder `package`."
    if folder is None:
        raise UsageError(f"--to web needs onnxruntime-web, by --runtime FOLDER. {how}")
    for candidate in (folder, folder / "dist", folder / "package" / "dist", folder / "onnxruntime-web" / "dist"):
        if all((candidate / name).is_file() for name in RUNTIME):
            return candidate
    raise UsageError(f"--runtime {folder} is not onnxruntime-web: it has no {listed(RUNTIME)}. {how}")


def _version(script: Path) -> str:
    known = re.search(r"ONNX Runtime Web v([\d.]+)", script.read_text("utf-8")[:500])
    return known[1] if known else "of unknown version"


def _title(classes: list[str]) -> str:
    names = [printable(name) for name in classes]
    return f"{listed(names, SHOWN_CLASSES)}?"


def _json(about: dict[str, Any]) -> str:
    """Return JSON that may stand inside a script element."""
    return json.dumps(about, ensure_ascii=False).replace("<", "\\u003c")


def _packed(path: Path) -> str:
    return base64.b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode()


def _kept(folder: Path) -> dict[str, str]:
    """Return what the service worker keeps: all files that the page needs, and a name for their content."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "one.html")
    sums = "".join(files.sha256_file(folder / name) for name in names)
    return {"files": json.dumps(["./", *names]), "digest": hashlib.sha256(sums.encode()).hexdigest()[:16]}


def _icon() -> bytes:
    """Return a picture of three bars, 512 by 512 pixels, as PNG."""
    from PIL import Image, ImageDraw

    icon = Image.new("RGB", (512, 512), "#1f5f8b")
    draw = ImageDraw.Draw(icon)
    for row, width in enumerate((300, 180, 90)):
        draw.rounded_rectangle((106, 126 + 95 * row, 106 + width, 196 + 95 * row), 20, fill="white")
    data = io.BytesIO()
    icon.save(data, "PNG")
    return data.getvalue()
