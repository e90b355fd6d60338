"""Random weights, the same for the same seed: for trials, tests and training from scratch."""

from __future__ import annotations

from regraft.core.rng import derive
from regraft.network import catalog
from regraft.network.backbones import Backbone
from regraft.network.preprocess import Preprocess
from regraft.network.weights import Weights
from regraft.network.workaround_torchvision_nms import import_timm


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
