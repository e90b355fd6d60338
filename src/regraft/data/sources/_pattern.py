"""Labels that stand in the files' paths: `--label-from "{label}_#.jpg"`.

A pattern and a path enter; the label, and the part and the group where the
pattern names them, leave. A pattern is matched from the path's end, as `*.jpg`
is: one without a slash is about the file's name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from regraft.core.errors import UsageError
from regraft.data.labels import as_label

HELP = "{label}, {part} and {group} for a name, # for a number, * for anything, **/ for any folders"

_WORDS = {"**/": r"(?:.*/)?", "*": r"[^/]*", "?": r"[^/]", "#": r"\d+"}
_TOKEN = re.compile(r"\{(?P<name>\w*)\}|\*\*/|[*?#]")
_USUAL = ("{label}.#.*", "{label}_#.*", "{label}-#.*", "{label} (#).*", "{label} #.*", "{label}#.*")


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern; raise UsageError if it is none."""
    names = [match["name"] for match in _TOKEN.finditer(pattern) if match["name"] is not None]
    if names.count("label") != 1 or len(set(names)) < len(names) or not {*names} <= {"label", "part", "group"}:
        raise UsageError(
            f"label_from is {pattern!r}; expected a pattern of paths with {{label}} in it once, e.g. '{{label}}_#.jpg' "
            f"for cat_12.jpg, or '{{label}}/*' for cat/12.jpg: {HELP}."
        )
    return re.compile(rf"(?:^|/){''.join(_expression(pattern))}$")


def _expression(pattern: str) -> list[str]:
    parts, at = [], 0
    for match in _TOKEN.finditer(pattern):
        parts += [re.escape(pattern[at : match.start()]), _WORDS.get(match[0]) or rf"(?P<{match['name']}>[^/]+?)"]
        at = match.end()
    return [*parts, re.escape(pattern[at:])]


def names_in(path: str, pattern: str) -> dict[str, str] | None:
    """Return what {label}, {part} and {group} stand for in a path; None if it does not match, or the label is blank."""
    match = compiled(pattern).search(path)
    return match.groupdict() if match and as_label(match["label"]) else None


def suggestion(paths: Sequence[str]) -> str:
    """Return the usual pattern that finds a few labels in all names, in a sentence; an empty text if none does."""
    for pattern in _USUAL:
        matches = [names_in(path, pattern) for path in paths]
        labels = {match["label"] for match in matches if match}
        if None not in matches and 2 <= len(labels) <= len(paths) / 2:
            shown = ", ".join(sorted(labels)[:5]) + (", …" if len(labels) > 5 else "")
            return f" If the labels are in the files' names ({shown}), add --label-from '{pattern}'."
    return ""
