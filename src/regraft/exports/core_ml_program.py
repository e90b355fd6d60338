"""Runs a Core ML program on any system, an operation at a time, in PyTorch; Core ML itself is on Apple's systems alone.

Only what networks for images are made of is here; a program with another operation, or another of its settings, is
refused. Results that the program holds in float16 are rounded to it.
Source: the operations of coremltools' MIL, their inputs and defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from regraft.core.errors import UsageError
from regraft.core.text import listed

if TYPE_CHECKING:
    import numpy as np

Tensor = torch.Tensor


def run(function: Any, inputs: Mapping[str, Tensor]) -> np.ndarray:
    """Return the probabilities (n_classes,) that a MIL function gives a classifier's last operation.

    inputs: float32 by name, as the function has them.
    Raises UsageError for an operation that is not here.
    """
    operations = [operation for operation in function.operations if operation.op_type != "const"]
    *before, last = operations
    _check([operation.op_type for operation in before], last.op_type)
    values = dict(inputs)
    for operation in before:
        results = OPERATIONS[operation.op_type](**_arguments(operation, values))
        each = results if isinstance(results, tuple) else (results,)
        values |= {var.name: _held(var, value) for var, value in zip(operation.outputs, each, strict=True)}
    probabilities: np.ndarray = _arguments(last, values)["probabilities"][0].numpy()
    return probabilities


def _check(names: Sequence[str], last: str) -> None:
    if unknown := sorted({*names} - OPERATIONS.keys() | ({last} - {"classify"})):
        raise UsageError(
            f"The Core ML program can't be checked here: regraft does not run its operation {listed(unknown)}. "
            "Choose another --to, or train on another --backbone."
        )


def _arguments(operation: Any, values: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: _value(var, values) for name, var in operation.inputs.items() if var is not None}


def _value(var: Any, values: Mapping[str, Tensor]) -> Any:
    """Return a constant as a tensor, a list of numbers or a number; a result as its tensor."""
    if isinstance(var, (list, tuple)):
        return [_value(each, values) for each in var]
    if var.val is None:
        return values[var.name]
    if getattr(var.val, "ndim", 0) and var.val.dtype.kind == "f":
        return torch.from_numpy(var.val).float()
    return var.val.tolist() if hasattr(var.val, "tolist") else var.val


def _held(var: Any, value: Tensor) -> Tensor:
    from coremltools.converters.mil.mil import types

    return value.half().float() if types.builtin_to_string(var.dtype) == "fp16" else value


def _require(condition: bool, operation: str, value: object) -> None:
    if not condition:
        raise UsageError(f"The Core ML program can't be checked here: regraft does not run {operation} with {value}.")


def _pad(x: Tensor, pad: list[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    _require(mode == "constant", "pad", mode)
    pairs = list(zip(pad[::2], pad[1::2], strict=True))  # MIL's begin with the first side, PyTorch's with the last
    return functional.pad(x, [side for pair in reversed(pairs) for side in pair], value=constant_val)


def _around(operation: str, pad_type: str, pad: list[int]) -> list[int]:
    _require(pad_type in ("valid", "custom"), operation, f"pad_type {pad_type}")
    return pad if pad_type == "custom" else [0] * len(pad)


def _conv(
    x: Tensor,
    weight: Tensor,
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    x = _pad(x, _around("conv", pad_type, pad))
    return functional.conv2d(x, weight, bias, strides, 0, dilations, groups)


def _pooled(pool: Callable[..., Tensor], operation: str) -> Callable[..., Tensor]:
    def pooled(
        x: Tensor,
        kernel_sizes: list[int],
        strides: list[int],
        pad_type: str,
        pad: list[int],
        ceil_mode: bool,
        exclude_padding_from_average: bool | None = None,
    ) -> Tensor:
        pad = _around(operation, pad_type, pad)
        _require(pad[::2] == pad[1::2], operation, f"pad {pad}")
        own = {} if exclude_padding_from_average is None else {"count_include_pad": not exclude_padding_from_average}
        return pool(x, kernel_sizes, strides, pad[::2], ceil_mode=ceil_mode, **own)

    return pooled


def _batch_norm(x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def _layer_norm(x: Tensor, axes: list[int], gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    last = [axis % x.ndim for axis in axes] == list(range(x.ndim - len(axes), x.ndim))
    _require(last, "layer_norm", f"axes {axes}")
    return functional.layer_norm(x, x.shape[-len(axes) :], gamma, beta, epsilon)


def _gelu(x: Tensor, mode: str) -> Tensor:
    _require(mode in ("EXACT", "TANH_APPROXIMATION"), "gelu", f"mode {mode}")
    return functional.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def _concat(values: list[Tensor], axis: int, interleave: bool = False) -> Tensor:
    _require(not interleave, "concat", "interleave")
    return torch.cat(values, axis)


def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def _slice(
    x: Tensor,
    begin: list[int],
    end: list[int],
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    none = [False] * len(begin)
    sides = zip(begin, end, begin_mask or none, end_mask or none, squeeze_mask or none, strict=True)
    return x[tuple(b if one else slice(None if no_b else b, None if no_e else e) for b, e, no_b, no_e, one in sides)]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "avg_pool": _pooled(functional.avg_pool2d, "avg_pool"),
    "batch_norm": _batch_norm,
    "cast": lambda x, **_: x,  # what each result is held as, `run` sees to
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "concat": _concat,
    "conv": _conv,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "linear": lambda x, weight, bias=None: functional.linear(x, weight, bias),
    "matmul": _matmul,
    "max_pool": _pooled(functional.max_pool2d, "max_pool"),
    "mul": lambda x, y: x * y,
    "pad": _pad,
    "real_div": lambda x, y: x / y,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes, keepdim=keep_dims),
    "relu": lambda x: x.relu(),
    "relu6": lambda x: functional.relu6(x),
    "reshape": lambda x, shape: x.reshape(shape),
    "sigmoid": lambda x: x.sigmoid(),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "silu": lambda x: functional.silu(x),
    "slice_by_index": _slice,
    "softmax": lambda x, axis: x.softmax(axis),
    "split": lambda x, split_sizes, axis: x.split(split_sizes, axis),
    "squeeze": lambda x, axes: x.squeeze(axes),
    "sub": lambda x, y: x - y,
    "tanh": lambda x: x.tanh(),
    "thresholded_relu": lambda x, alpha: torch.where(x < alpha, 0.0, x),
    "transpose": lambda x, perm: x.permute(perm),
}
