"""The verbs that run by themselves and give no result: `serve` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from regraft.cli.app import app
from regraft.cli.flags import MAIN, command
from regraft.features.options import StoreOptions
from regraft.serving.options import ServeOptions


@command(app, ServeOptions)
def serve(
    model: Annotated[Path, Parameter(help="A folder written by `regraft train`, or a folder of such folders.")],
    /,
    *,
    options: Any = None,
) -> None:
    """Answer over HTTP what is on photographs, with a page to try it, until Ctrl-C."""
    from regraft.serving.serve import serve

    serve(model, options=options)


@command(app, StoreOptions)
def demo(
    *,
    output: Annotated[Path, Parameter(alias="-o", help="Folder for what the demo makes.", group=MAIN)] = Path(
        "regraft-demo"
    ),
    options: Any = None,
) -> None:
    """Train, evaluate and use a classifier of handwritten digits, offline, in a minute or two."""
    from regraft import demo as demonstration

    demonstration.run(output, options.store)
