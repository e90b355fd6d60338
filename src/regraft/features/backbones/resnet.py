"""ResNet (He et al. 2015, arXiv:1512.03385)."""

from __future__ import annotations

from regraft.features.backbones import Backbone

BACKBONES = (Backbone(name="resnet50", architecture="resnet50"),)
