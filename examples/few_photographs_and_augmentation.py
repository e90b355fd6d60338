"""InceptionV3 on 3,000 cats and dogs: augmentation where photographs are few, and where to cut the network.

    python examples/few_photographs_and_augmentation.py cats-dogs.zip
    python examples/few_photographs_and_augmentation.py cats-dogs.zip --weights hub

In the article each epoch decodes, augments and runs the frozen network again. Here four views of each photograph are
computed once, and training draws among them and the photograph itself.
"""

from __future__ import annotations

from typing import Any

import _recipe


def main(source: Any, weights: str | None = None, only: Any = None, **changes: Any) -> _recipe.Reports:
    """Train on the features of all layers and of fewer; say what the two are worth beside each other."""
    reports = _recipe.run(__file__, source, weights, only, **changes)
    if len(reports) == 2:
        more, fewer = (report.accuracy for report in reports.values())
        print(f"Fewer layers: {100 * (fewer - more):+.1f} points")
    return reports


if __name__ == "__main__":
    _recipe.start(__file__, __doc__, main)
