"""Arguments that several commands have: the words before their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from regraft.cli.flags import MAIN


def file(help: str) -> Parameter:
    """Return an argument of the main options: mostly a file to write."""
    return Parameter(help=help, group=MAIN)


Source = Annotated[str, Parameter(help="A folder of class folders, a .zip or .tar[.gz] of one, or a CSV.")]
ModelFolder = Annotated[Path, Parameter(help="A folder written by `regraft train`.")]
Output = Annotated[Path, Parameter(alias="-o", help="Folder for the model.", group=MAIN)]
Overwrite = Annotated[bool, Parameter(help="Replace what regraft has written there before.", group=MAIN)]
Show = Annotated[bool, Parameter(help="Print the recipe of the --preset, and train nothing.", group=MAIN)]
Json = Annotated[bool, Parameter(help="JSON to stdout, for machines.", group=MAIN)]
