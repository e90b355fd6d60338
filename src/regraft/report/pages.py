"""HTML pages: one file each that opens anywhere, offline, and needs nothing beside it.

What a page shows is chosen in the file of its kind (`evaluation_page`,
`comparison_page`, `audit_page`); here are the templates, whose common look is
in `base.html`, and pictures inside the file. No page runs a script: a click, or
Enter, opens what the browser itself can open.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from regraft.core.text import percent
from regraft.core.version import versions
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import Row
from regraft.report import plots

THUMBNAIL_SIDE = 480  # pixels: enough to see what is on a picture when it is enlarged

# The colours of a chart that a dark page changes: there, and in the dark.
DARK = {plots.INK: "#e4e7eb", plots.GREY: "#9aa4b0", plots.EDGE: "#4a535e", plots.GRID: "#2b323a", "#ffffff": "#1d2127"}


def page(template: str, **values: Any) -> str:
    """Return a page as the text of one HTML file, to be written as UTF-8.

    template: a file of the folder `templates`. It extends `base.html`, which has the look of all pages, by the blocks
              title, style (rules of its own), main and footer.
    values:   what it shows; a name that is not valid text is shown with question marks. `made`: from `made`.
    """
    html = _templates().get_template(template).render({"made": {}, **values})
    return html.encode("utf-8", "replace").decode("utf-8")


def made(command: str, source: str, **more: object) -> dict[str, str]:
    """Return how a page was made, name → value: what repeats it, of which data, when, by which versions.

    command: of the command line; "" from Python.
    more:    what else decides it, such as the seed.
    """
    known = {"command": command, "data": source, **{name.replace("_", " "): str(value) for name, value in more.items()}}
    known |= {"date": date.today().isoformat(), "made with": listed_versions(versions())}
    return {name: value for name, value in known.items() if value}


def listed_versions(packages: Mapping[str, str]) -> str:
    """Return versions as one line."""
    return ", ".join(f"{name} {version}" for name, version in packages.items())


class Chart(NamedTuple):
    """A chart as addresses that hold the picture itself, for an <img>: of a wide page, and drawn again for a narrow."""

    wide: str
    narrow: str


class Photo(NamedTuple):
    """A photograph of a plain page; `picture` is from `thumbnail`, None if there is none to show."""

    picture: bytes | None
    caption: str
    path: str = ""


class Section(NamedTuple):
    """One part of a plain page: a heading, and below it a chart, photographs, a table.

    rows:  cells, the first row the titles.
    texts: the columns, from 1 on, that hold text and not numbers.
    total: how many files it lists, with what there is to say of each; None if it lists no files.
    more:  how many more are not listed, in words.
    """

    title: str
    chart: Chart | None = None
    photos: Sequence[Photo] = ()
    rows: Sequence[Sequence[str]] = ()
    texts: Sequence[int] = ()
    total: int | None = None
    about: str = ""
    more: str = ""


def plain(
    title: str, lead: str, sections: Sequence[Section], made: Mapping[str, str], notes: Sequence[str] = ()
) -> str:
    """Return a page of sections under a title and a sentence that leads in; sections without content are left out."""
    filled = [section for section in sections if section.chart or section.photos or len(section.rows) > 1]
    return page("result.html", title=title, lead=lead, notes=notes, sections=filled, made=made)


def chart(draw: Callable[..., Figure | None]) -> Chart | None:
    """Return what `draw(width=…)` draws, for a wide and a narrow page, dark on a dark one; None if nothing."""
    figures = [draw(width=width) for width in (plots.WIDE, plots.NARROW)]
    pictures = [data_uri(_themed(plots.svg(figure)).encode()) for figure in figures if figure]
    return Chart(*pictures) if pictures else None


def thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> bytes:
    """Return an RGB image as a small WebP, so many pixels on its longer side at most; the image stays as it is."""
    small = image.copy()
    small.thumbnail((side, side))
    data = io.BytesIO()
    small.save(data, format="WEBP", quality=70)
    return data.getvalue()


def thumbnail_of(row: Row, side: int = THUMBNAIL_SIDE) -> bytes | None:
    """Return a row's picture as a thumbnail; None if its file is missing or changed by now."""
    try:
        return thumbnail(Image.fromarray(decode(row.location.read(), min_side=side)), side)
    except (OSError, ValueError, BrokenImage):
        return None


def _themed(svg: str) -> str:
    """Return an SVG whose colours become those of DARK where the page is dark."""
    names = {colour: f"--c{number}" for number, colour in enumerate(DARK)}
    light, dark = (
        "".join(f"{names[colour]}: {value}; " for colour, value in colours.items())
        for colours in ({colour: colour for colour in DARK}, DARK)
    )
    for colour, name in names.items():
        svg = svg.replace(f": {colour}", f": var({name})")
    rules = f":root {{ {light}}} @media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }} "
    return svg.replace('<style type="text/css">', f'<style type="text/css">{rules}', 1)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: files("regraft.report").joinpath("templates", name).read_text(encoding="utf-8")
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "data_uri": data_uri, "breakable": _breakable, "unbroken": _unbroken}
    return environment


def _breakable(name: str) -> Markup:
    """Return a name that a narrow page may break after a slash or an underscore, before it breaks anywhere."""
    return Markup(re.sub("([/_])", r"\1<wbr>", str(escape(name))))


def _unbroken(text: str) -> str:
    """Return a text whose numbers stay on one line with their percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def data_uri(data: bytes) -> str:
    """Return the picture as an address that holds the picture itself; in an <img>, its ids and styles stay its own."""
    kinds = {b"\x89PN": "png", b"\xff\xd8\xff": "jpeg", b"RIF": "webp"}
    return f"data:image/{kinds.get(data[:3], 'svg+xml')};base64,{base64.b64encode(data).decode()}"
