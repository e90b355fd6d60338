"""A dense layer under full-batch gradient descent, which learns a coefficient for each row in place of its weights.

Every gradient of the weights is a combination of the rows, so gradient steps, with momentum or without, never leave
weights = those before + coefficients @ rows. A step in these terms needs the rows' products with each other, which are
computed once: n·n numbers are read in a step, not the rows twice. The weights come out as they would; only rounding
differs. (Kernel machines are trained so: the representer theorem; Schölkopf and Smola 2002, chapter 4.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from regraft.training.kernels import packed

if TYPE_CHECKING:
    from regraft.training.options import FitOptions


def pays(layer: nn.Linear, rows: torch.Tensor, options: FitOptions, *, judged: bool) -> bool:
    """Whether full-batch steps on rows (n, in) may be taken so, and cost less with the rows' products than without.

    judged: whether other rows judge each epoch, for which the weights have to be computed.
    """
    descent = options.optimizer == "sgd" and not options.optimizer_settings.get("weight_decay")
    n, width = rows.shape
    less = n + (width if judged else 0) < 2 * width  # numbers read in an epoch, a row
    enough = n <= options.epochs * layer.out_features  # steps, to make up for computing the products
    return descent and less and enough and rows.nbytes <= packed.LIMIT and packed.available()


class Dual(nn.Module):
    """Computes what the layer does; in training on its own rows alone.

    The gradient of the coefficients is that of the outputs, so that a step changes the weights as it would change the
    layer's own.
    """

    def __init__(self, layer: nn.Linear, rows: torch.Tensor) -> None:
        super().__init__()
        layer.weight.requires_grad = False
        self.layer, self._rows = layer, rows
        self.coefficients = nn.Parameter(rows.new_zeros(layer.out_features, len(rows)))
        with torch.no_grad():
            self._before = rows @ layer.weight.T
            self._products, self._columns = packed.laid_out(rows @ rows.T), packed.laid_out(rows.T)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (n, out) of inputs (n, in) float32."""
        if not self.training:
            return nn.functional.linear(inputs, self._weight(), self.layer.bias)
        if inputs.data_ptr() != self._rows.data_ptr() or inputs.shape != self._rows.shape:
            raise AssertionError("A dual layer is trained on other rows than its own.")
        learnt: torch.Tensor = _Step.apply(self.coefficients, self._products)  # type: ignore[no-untyped-call]
        return self._before + learnt + self.layer.bias

    def _weight(self) -> torch.Tensor:
        return self.layer.weight + packed.times(self.coefficients, self._columns)

    def settle(self) -> None:
        """Give the layer the weights that were learnt, and its gradient back."""
        with torch.no_grad():
            self.layer.weight.copy_(self._weight())
            self.coefficients.zero_()
        self.layer.weight.requires_grad = True


class _Step(torch.autograd.Function):
    """coefficients (out, n), the rows' products laid out (n, n) → (n, out)."""

    @staticmethod
    def forward(ctx: Any, coefficients: torch.Tensor, products: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return packed.times(coefficients, products).T.contiguous()  # what comes after goes row by row

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # noqa: ARG004
        return gradient.T.contiguous(), None
