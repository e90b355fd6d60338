"""What the examples share: the options file beside a script, its stages one after the other, the command line.

A stage is a table of the options file. Its options are those of `regraft train` and of `regraft.Classifier`, with the
article's own numbers; its `offline` table replaces those that go with weights that are not on this machine.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import regraft

Reports = dict[str, regraft.Report]


def stages(script: str) -> dict[str, dict[str, Any]]:
    """Return the stages of the options file beside a script, by name."""
    return tomllib.loads(Path(script).with_suffix(".toml").read_text("utf-8"))


def options(script: str, stage: str, weights: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return the options of a stage.

    weights: "hub", or the path of a file or folder: the article's own network; None: the weights that regraft installs.
    changes: options that win over the file's.
    """
    own = stages(script)[stage]
    offline = own.pop("offline", {})
    return {**own, **(offline if weights is None else {"weights": weights}), **changes}


def run(script: str, source: Any, weights: str | None = None, only: Any = None, **changes: Any) -> Reports:
    """Train and evaluate each stage, or `only` some; print a line for each; return their reports."""
    reports: Reports = {}
    for stage in only or stages(script):
        began = time.perf_counter()
        reports[stage] = regraft.Classifier(**options(script, stage, weights, **changes)).fit(source).report_
        low, high = reports[stage].evaluation.accuracy_interval
        seconds = time.perf_counter() - began
        print(f"{stage}: {reports[stage].accuracy:.1%} ({low:.1%} to {high:.1%}), {seconds:.0f} s", flush=True)
    return reports


def start(script: str, about: str | None, main: Callable[..., Any]) -> None:
    """Call an example's `main` with the words of its command line."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("source", help="photographs: a folder or an archive of class folders")
    parser.add_argument("--weights", help="hub, or the PATH of a file or folder: the article's own network")
    parser.add_argument("--only", nargs="*", choices=list(stages(script)), help="some stages of the options file")
    arguments = parser.parse_args()
    try:
        main(arguments.source, arguments.weights, arguments.only)
    except regraft.RegraftError as error:
        raise SystemExit(f"{Path(script).name}: {error}") from None
