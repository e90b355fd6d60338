"""The application that the commands belong to: how its help looks, and the flags that stand everywhere."""

from __future__ import annotations

import logging
import shlex
from contextvars import ContextVar
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from regraft.cli.flags import PlainHelp, converted, show_default
from regraft.core.progress import log
from regraft.core.version import __version__

app = App(
    name="regraft",
    help="A folder of photographs becomes a tested image classifier, by transfer learning.",
    version=__version__,
    help_format="plaintext",
    version_format="plaintext",
    help_formatter=PlainHelp(),
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        negative_bool=(),
        negative_iterable=(),
        show_default=show_default,
        consume_multiple=(1, None),
        converter=converted,
    ),
)
typed_command = ContextVar("typed_command", default="")  # for a page to say what made it

app.meta.group_parameters = Group("Everywhere", sort_key=99)
app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def _everywhere(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(alias="-q", help="Print the result and what is wrong, no more.")] = False,
    verbose: Annotated[bool, Parameter(alias="-v", help="Say more; show tracebacks.")] = False,
) -> Any:
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    typed_command.set(shlex.join(["regraft", *tokens]))
    return app(tokens, result_action="return_value")
