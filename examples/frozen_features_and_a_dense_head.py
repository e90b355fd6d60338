"""InceptionV3 on CIFAR-10: a frozen network, a dense head on its features, then the upper layers at a low rate.

    python examples/frozen_features_and_a_dense_head.py cifar10-half.zip
    python examples/frozen_features_and_a_dense_head.py cifar10-half.zip --weights hub

The article runs the frozen network again in each epoch; here its features are computed once. The article stops by the
test images, here a tenth of the training part says when, so that the test images choose nothing.
"""

from __future__ import annotations

from typing import Any

import _recipe


def main(source: Any, weights: str | None = None, only: Any = None, **changes: Any) -> _recipe.Reports:
    """Train both stages; say after how many epochs each was best."""
    reports = _recipe.run(__file__, source, weights, only, **changes)
    for stage, report in reports.items():
        history = report.model.history
        print(f"{stage}: {history.epochs} epochs, the best is {history.best_epoch}")
    return reports


if __name__ == "__main__":
    _recipe.start(__file__, __doc__, main)
