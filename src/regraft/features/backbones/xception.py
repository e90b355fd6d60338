"""Xception (Chollet 2016, arXiv:1610.02357), as Keras has it."""

from __future__ import annotations

from regraft.features.backbones import Backbone

BACKBONES = (Backbone(name="xception", architecture="legacy_xception"),)
