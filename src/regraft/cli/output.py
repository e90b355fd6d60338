"""How a command's result is printed, and its page written."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.cli.app import typed_command
from regraft.core import files
from regraft.core.progress import log
from regraft.core.text import printable_json, printable_lines

if TYPE_CHECKING:
    from regraft.core.results import Result


def write_page(path: Path, text: str) -> None:
    """Write a page, and say where it is."""
    files.write_file(path, text.encode())
    log.info("It is written to %s.", path)


def show(result: Result, json: bool, report: Path | None = None) -> None:
    """Print a result, and write its page if one is asked for."""
    if report:
        write_page(report, result.html(typed_command.get()))
    print_result(result.to_dict(), json, result.text())


def print_result(data: Any, json: bool, text: str) -> None:
    """Print data as JSON, or text."""
    print(printable_json(jsonlib.dumps(data, indent=2, ensure_ascii=False)) if json else printable_lines(text))
