"""Random weights, the same for the same seed: for trials, tests and training from nothing."""

from __future__ import annotations

from regraft.core.rng import derive
from regraft.features import catalog
from regraft.features._torchvision import import_timm
from regraft.features.backbones import Backbone
from regraft.features.preprocess import Preprocess
from regraft.features.weights import Weights


def load(backbone: Backbone, where: str = "random", seed: int = 0) -> Weights:  # noqa: ARG001 - one signature for all
    """Return freshly drawn weights; the preprocessing is that of timm's own weights for the architecture."""
    network = catalog.build(backbone, seed=derive(seed, "random weights", backbone.architecture))
    config = import_timm().models.get_pretrained_cfg(backbone.timm_name)
    return Weights(
        source="random",
        path="",
        tensors=network.state_dict(),
        preprocess=Preprocess.from_timm(config.to_dict()),
        pretrained=False,
    )
