"""OpenVINO: the frozen part on x86 and Arm processors, several times faster than PyTorch.

The network is converted once and kept in the folder it is given, so that a
second start converts nothing. Each core has a stream of its own, so that as
many batches as there are cores run at once and none waits for another.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from regraft.core.errors import StoreError, UsageError
from regraft.core.files import replacing_folder, sha256_file
from regraft.core.machine import cores
from regraft.core.progress import log
from regraft.inference.engines import CONVERTED, FINGERPRINT
from regraft.inference.workaround_openvino_converter import import_without_converter
from regraft.inference.workaround_openvino_deadlock import make_table_of_types

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from regraft.inference.engines import Engine, LoadModule, Sample

BATCH = 4  # images; with one stream a core, 8 and 16 were slower for small networks and no faster for large ones
CALIBRATION = 100  # images that int8 takes its ranges from
NETWORK, TENSORS = "network.xml", "network.bin"
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": None}  # between the int8 layers: whatever runs best


def precisions() -> list[str]:
    """Return float32 and int8, after bfloat16 where the processor multiplies it faster; none without OpenVINO."""
    if importlib.util.find_spec("openvino") is None:
        return []
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [*(["bfloat16"] if "BF16" in capabilities else []), "float32", "int8"]


def version() -> str:
    """Return OpenVINO's."""
    number: str = import_openvino().__version__
    return number.partition("-")[0]  # the rest names the build


def build(load: LoadModule, size: int, precision: str, folder: Path, calibration: Sample) -> Engine:
    """Return the engine, from the network kept in `folder`, or converted now from the module that `load()` returns.

    calibration: gives up to so many real images, (n, S, S, 3) uint8; asked only for a new int8 network.
    Raises UsageError if int8 is wanted and NNCF is not installed.
    """
    network = _kept(folder / CONVERTED)
    if network is None:
        network = _convert(load(), size)
        if precision == "int8":
            network = _quantise(network, calibration(CALIBRATION))
        _keep(network, folder / CONVERTED, must=precision == "int8")
    network.reshape([BATCH, size, size, 3])  # it may have been converted without: that takes more memory
    return _OpenVino(network, precision)


class _OpenVino:
    def __init__(self, network: Any, precision: str) -> None:
        settings = {"NUM_STREAMS": str(cores()), "INFERENCE_NUM_THREADS": str(cores())}
        if hint := _HINTS[precision]:
            settings["INFERENCE_PRECISION_HINT"] = hint
        make_table_of_types(import_openvino())
        self._compiled = import_openvino().Core().compile_model(network, "CPU", settings)
        self._own = threading.local()  # a request serves one thread at a time
        self.batch = BATCH

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import numpy as np

        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        return np.array(self._own.request.infer([images], share_inputs=True, share_outputs=True)[0])


def import_openvino() -> ModuleType:
    """Return OpenVINO, without the module by which it and NNCF report to their makers over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_without_converter()


def _convert(module: nn.Module, size: int) -> Any:
    import torch

    openvino, images = import_openvino(), torch.zeros(BATCH, size, size, 3, dtype=torch.uint8)
    with torch.no_grad(), quiet():
        with contextlib.suppress(Exception):  # some vision transformers of timm do more when they are exported
            return openvino.convert_model(torch.export.export(module, (images,)))
        try:
            return openvino.convert_model(module, example_input=images, input=list(images.shape))
        except Exception as error:  # two libraries follow the network, each with its own ways to fail
            raise UsageError(f"OpenVINO can't convert this network ({_line(error)}). Use --engine torch.") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop the two libraries' warnings about each other, and undo what OpenVINO's converter does to the root logger."""
    root = logging.getLogger()
    level, handlers, filters = root.level, list(root.handlers), list(root.filters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        root.filters[:] = filters


def _quantise(network: Any, images: np.ndarray) -> Any:
    """Return the network in int8, its ranges taken from real images."""
    import_openvino()
    try:
        import nncf
    except ImportError as error:
        raise UsageError("--precision int8 needs NNCF. Install it with: pip install 'regraft[int8]'") from error
    batches = [images[start : start + BATCH] for start in range(0, len(images) - BATCH + 1, BATCH)]
    if not batches:
        raise UsageError(
            f"--precision int8 takes its ranges from real images; expected {BATCH} or more that can be read."
        )
    with contextlib.redirect_stdout(sys.stderr):  # its progress; results alone go to stdout
        return nncf.quantize(network, nncf.Dataset(batches), subset_size=len(batches))


def _kept(folder: Path) -> Any:
    """Return the network in `folder`, None if there is none, or not the one that was written."""
    if not (folder / FINGERPRINT).is_file():  # none, or one of an earlier version
        return None
    try:
        if (folder / FINGERPRINT).read_text("utf-8") == _fingerprint(folder):
            return import_openvino().Core().read_model(folder / NETWORK)
    except (OSError, ValueError, RuntimeError):  # whatever is wrong with it, it is converted again
        pass
    log.warning("The network in %s is not as it was converted; it is converted again.", folder)
    return None


def _keep(network: Any, folder: Path, *, must: bool) -> None:
    """Write the network into `folder`; a disk that refuses matters only if it `must` be the same the next time."""
    with contextlib.nullcontext() if must else contextlib.suppress(StoreError), replacing_folder(folder) as new:
        try:
            import_openvino().save_model(network, new / NETWORK, compress_to_fp16=False)
        except RuntimeError as error:
            raise StoreError(f"Can't write {folder}: {_line(error)}") from error
        (new / FINGERPRINT).write_text(_fingerprint(new), "utf-8")


def _fingerprint(folder: Path) -> str:
    return " ".join(sha256_file(folder / name) for name in (NETWORK, TENSORS))


def _line(error: Exception) -> str:
    """Return the last line of a library's message, where OpenVINO puts the reason."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
