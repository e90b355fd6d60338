"""OpenVINO's first inference must not begin in several threads at once: they can wait for each other for ever.

At the first inference its Python binding makes a table of NumPy's types, a C++
static, while it holds Python's lock and gives it away in between; a second
thread that arrives then holds that lock and waits for the static. Asking for
one type in a single thread makes the table before.

Seen with OpenVINO 2026.4 and looked for in vain among the issues of
https://github.com/openvinotoolkit/openvino. It may go once the test of it,
which makes the interpreter switch threads at every turn, passes without it.
"""

from __future__ import annotations

from types import ModuleType


def make_table_of_types(openvino: ModuleType) -> None:
    """Have OpenVINO make its table of types in this thread, before any other infers."""
    openvino.Type.f32.to_dtype()
