"""VGG16 on cats and dogs, from R: feature extraction, the same with augmentation, then fine-tuning.

    python examples/feature_extraction_then_fine_tuning.py cats-dogs.zip
    python examples/feature_extraction_then_fine_tuning.py cats-dogs.zip --weights hub

The chapter names the sisters of VGG16 as well (Xception, InceptionV3, ResNet50, VGG19, MobileNet): put another name for
the backbone into the options file, and list its places with `regraft backbones NAME --cuts`.
"""

from __future__ import annotations

from typing import Any

import _recipe


def main(source: Any, weights: str | None = None, only: Any = None, **changes: Any) -> _recipe.Reports:
    """Train the three stages; say what each phase of the fine-tuning brought."""
    reports = _recipe.run(__file__, source, weights, only, **changes)
    for phase in reports["fine_tuning"].model.chosen.get("phases", []) if "fine_tuning" in reports else []:
        print(f"fine_tuning, after the {phase['phase']}: {phase['accuracy']:.1%} of the validation images")
    return reports


if __name__ == "__main__":
    _recipe.start(__file__, __doc__, main)
