"""Runners of small trunks, for tests whose subject is not the network."""

from tests.conftest import PLAIN

from regraft.core.options import make
from regraft.features.options import FeatureOptions
from regraft.inference.agreement import choose
from regraft.inference.runner import Runner
from regraft.network.build import build, build_with_tail

OPTIONS = {"backbone": "test_resnet", "weights": "random", "size": 64, **PLAIN}


def runner(**choices):
    """What runs a trunk; with `tail` one whose features are maps."""
    options = make(FeatureOptions, {**OPTIONS, **choices})
    choice = choose(options.engine)
    if options.trains_tail:
        return Runner(build_with_tail(options.network, choice, options.tail)[0])
    return Runner(build(options.network, choice, options.tail.pool))
