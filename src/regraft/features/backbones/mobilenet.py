"""MobileNet (Howard et al. 2017, arXiv:1704.04861)."""

from __future__ import annotations

from regraft.features.backbones import Backbone

BACKBONES = (Backbone(name="mobilenet", architecture="mobilenetv1_100"),)
