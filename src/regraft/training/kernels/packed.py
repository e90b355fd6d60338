"""A dense layer whose inputs stay the same from step to step: they are laid out once, as the processor reads them best.

In full-batch training the inputs are the large constant of every product, and the weights are what is small. oneDNN
keeps a constant operand in its own layout for inference; here the inputs are that operand, once as rows for the logits
and once as columns for the gradient. A step then takes a fraction of the time where the layer is narrow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LIMIT = 2**28  # bytes of inputs; they are kept three times


class Packed(nn.Module):
    """Computes what the layer does; its parameters are the layer's."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self._inputs = torch.empty(0)  # kept, so that its address is nobody else's
        self._layouts: tuple[torch.Tensor, ...] = ()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (n, out) of inputs (n, in) float32, laid out anew if they aren't those of the last training step."""
        if not (self.training and inputs.nbytes <= LIMIT and available()):
            return self.layer(inputs)  # type: ignore[no-any-return]
        if inputs.data_ptr() != self._inputs.data_ptr() or inputs.shape != self._inputs.shape:
            self._inputs, self._layouts = inputs, (laid_out(inputs), laid_out(inputs.T))
        product: torch.Tensor = _Product.apply(self.layer.weight, *self._layouts)  # type: ignore[no-untyped-call]
        return product + self.layer.bias


def available() -> bool:
    """Whether this PyTorch has oneDNN, and its operators, which are not promised."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)  # type: ignore[no-untyped-call]


class _Product(torch.autograd.Function):
    """weight (out, in), inputs (n, in) and the same inputs as columns (in, n) → (n, out); only the weight learns."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        ctx.columns = columns
        return times(weight, rows).T.contiguous()  # what comes after goes row by row

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return times(gradient.T.contiguous(), ctx.columns), None, None


def laid_out(constant: torch.Tensor) -> torch.Tensor:
    """Return a matrix as oneDNN reads it best."""
    found: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(constant)
    return found


def times(left: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
    """Return left @ constant.T, the constant laid out."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(left, constant, None, "none", [], "")
    return product
