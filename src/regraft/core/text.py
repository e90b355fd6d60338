"""Text for terminals and tables."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """Return `text` with what no terminal, JSON or CSV file can carry (control characters, surrogates) escaped."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", lambda m: m[0].encode("unicode_escape").decode(), text)
