"""HTML pages: one file each that opens anywhere, offline, and needs nothing beside it.

What a page shows is chosen in the file of its kind (`evaluation_page`,
`comparison_page`, `audit_page`); here are the templates, whose common look is
in `base.html`, and pictures inside the file.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from regraft.core.text import percent
from regraft.report import plots

THUMBNAIL_SIDE = 160  # pixels


def page(template: str, **values: Any) -> str:
    """Return a page as the text of one HTML file, to be written as UTF-8.

    template: a file of the folder `templates`. It extends `base.html`, which has the look of all pages, by the blocks
              title, style (rules of its own), main and footer.
    values:   what it shows; a name that is not valid text is shown with question marks.
    """
    html = _templates().get_template(template).render(values)
    return html.encode("utf-8", "replace").decode("utf-8")


class Section(NamedTuple):
    """One part of a plain page: a heading, and below it a picture, a table, or both.

    picture: from `picture`.
    rows:    cells, the first row the titles.
    numbers: whether all columns but the first hold numbers.
    more:    what is not shown, in words.
    """

    title: str
    picture: str = ""
    rows: Sequence[Sequence[str]] = ()
    numbers: bool = True
    more: str = ""


def plain(title: str, lead: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """Return a page of sections under a title and a sentence that leads in; sections without content are left out."""
    filled = [section for section in sections if section.picture or len(section.rows) > 1]
    return page("result.html", title=title, lead=lead, notes=notes, sections=filled)


def picture(figure: Figure) -> str:
    """Return a figure as an address that holds the picture itself, for an <img>."""
    return data_uri(plots.svg(figure).encode())


def thumbnail(image: Image.Image) -> bytes:
    """Return an RGB image as a small JPEG, 160 pixels on its longer side at most; the image stays as it is."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    data = io.BytesIO()
    small.save(data, format="JPEG", quality=80)
    return data.getvalue()


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
    kinds = {b"\x89PN": "png", b"\xff\xd8\xff": "jpeg"}
    return f"data:image/{kinds.get(data[:3], 'svg+xml')};base64,{base64.b64encode(data).decode()}"
