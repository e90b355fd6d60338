"""What OpenVINO has compiled must not be deleted in a process that was forked since: that waits for ever.

A compiled network has threads, which a forked process does not have; running
it, or deleting it, waits for them. A network that is compiled in the forked
process runs. So the parent's is kept as long as the process lives.

https://github.com/openvinotoolkit/openvino/issues/416, closed as one that is not
going to be fixed; seen with OpenVINO 2026.4. It may go once the test of it
passes without it.
"""

from __future__ import annotations

import ctypes


def never_delete(engine: object) -> None:
    """Have Python keep an object to the end of the process, and beyond: it is not even deleted as Python ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
