"""`regraft.extractor`: features inside a program of one's own on Ray or Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.core.options import takes_options
from regraft.data import read as reading
from regraft.features.options import FeatureOptions
from regraft.network.trunk import Choice, Trunk
from regraft.pipeline import units
from regraft.pipeline.extract import build_network

if TYPE_CHECKING:
    from regraft.features.arrow import TableExtractor


@takes_options(FeatureOptions)
def extractor(sample: Any = None, *, options: FeatureOptions) -> TableExtractor:
    """Return what adds features to Arrow tables of images, in whatever process Ray or Spark calls it.

    sample: some images, as for `predict`, on which the precision is settled; None: it is float32 unless the options
            name another.
    Raises UsageError for a tail.
    """
    from regraft.features.arrow import TableExtractor
    from regraft.features.job import feature_contents
    from regraft.inference.runner import Runner

    units.check_no_tail(options)
    runner = build_network(options).runner
    if sample is None:
        runner = Runner([_settled(trunk) for trunk in runner.trunks])
    else:
        units.settle_on(reading.read_inputs(sample).used.rows, runner, options.store.store)
    return TableExtractor(feature_contents(runner), options.store.store)


def _settled(trunk: Trunk) -> Trunk:
    return trunk.on(Choice(trunk.choice.engine, "float32")) if trunk.choice.tentative else trunk
