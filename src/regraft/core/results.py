"""What the verbs return: one line in a session, a page in a notebook, JSON for machines, and a file.

How the page of a kind looks is left to `report/`: a file `<kind>_page.py` there has `render(result, command)`, the text
of one HTML file, and is imported when it is asked for.
"""

from __future__ import annotations

import abc
import html
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regraft.core import outputs
from regraft.core.files import write_file

# A page in a frame of its own: its styles don't reach the notebook, and the frame is as high as the page.
_FRAME = (
    '<iframe srcdoc="{page}" style="width: 100%; border: 0" '
    "onload=\"this.style.height = this.contentDocument.documentElement.scrollHeight + 20 + 'px'\"></iframe>"
)
_BASE = '<base href="about:srcdoc">'  # else a link within the page would open the notebook in the frame


class Result(abc.ABC):
    """The result of a verb."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""

    @abc.abstractmethod
    def text(self) -> str:
        """Return it as lines for a terminal."""

    def html(self, command: str = "") -> str:
        """Return it as the text of one HTML file, with its tables and pictures.

        command: what made it on the command line, for the page to say.
        """
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        page = importlib.import_module(f"regraft.report.{kind}_page")
        return str(page.render(self, command))

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        page = self.html().replace("<head>", f"<head>{_BASE}", 1)
        return _FRAME.format(page=html.escape(page, quote=True))

    def formats(self) -> dict[str, Callable[[], str]]:
        """Return what gives the text of a file, by its name's ending."""
        return {".html": self.html, ".json": self._json}

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it to a file, in the format that the name's ending says: .html, .json, or another of `formats`.

        overwrite: replace a file of this name, if regraft wrote it.
        Raises UsageError for another ending, or a file that may not be replaced; StoreError if the disk refuses.
        """
        path, formats = Path(path), self.formats()
        outputs.check(path, list(formats), overwrite=overwrite)
        write_file(path, formats[path.suffix.lower()]().encode("utf-8", "surrogateescape"))

    def _json(self) -> str:
        return json.dumps({"made_by": "regraft", **self.to_dict()}, indent=2, ensure_ascii=False)
