"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""

from __future__ import annotations

from regraft.features.backbones import Backbone

BACKBONES = (Backbone(name="mobilenet_v2", architecture="mobilenetv2_100"),)
