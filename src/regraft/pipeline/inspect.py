"""`regraft.inspect`: what is in a source, by looking at every image, and on request by comparing their features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.options import require, takes_options
from regraft.core.remote import is_url
from regraft.data import read as reading
from regraft.data import units as listing
from regraft.features import executors
from regraft.pipeline import audit, units
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import AuditOptions
from regraft.pipeline.read import refusal

if TYPE_CHECKING:
    from regraft.audit.findings import Audit
    from regraft.data.inspect import Inspection
    from regraft.data.inspect_units import UnitInspection


@takes_options(AuditOptions)
def inspect(source: Any, *, deep: bool = False, options: AuditOptions) -> Inspection | UnitInspection | Audit:
    """Return what is in a source: every image is decoded, and broken ones are marked; they are never an error.

    source: as for `read`, or an Index.
    deep:   also look for near-duplicates, likely label errors and outliers, by features: the result is an Audit.
            The options but `conflicts`, `outside` and those of `on` are for this.

    With `on`, or of a URL, the source is looked at unit by unit, as `extract` reads it into a folder.
    Raises DataError if nothing in the source can be used.
    """
    if options.executor.on or is_url(source):
        require(not deep, "deep", deep, "off where a source is inspected unit by unit")
        return _inspect_units(source, options)
    if deep:
        return audit.audit(source, options)
    from regraft.audit import shortcuts
    from regraft.data import inspect as inspection
    from regraft.features.store.store import Store

    inspected = inspection.inspect(tied(reading.read(source, options=options.source), options.store))
    known = shortcuts.measure(inspected.index, Store(options.store.store))
    warnings = tuple(known.warnings()) if known else ()
    return dataclasses.replace(inspected, refusal=refusal(inspected.index), warnings=warnings)


def _inspect_units(source: str | Path, options: AuditOptions) -> UnitInspection:
    from regraft.data import inspect_units

    units.check_source_options(options.source, "none where a source is inspected unit by unit")
    executor = plugins.load(executors, options.executor.executor)
    plan = listing.plan(source, options.executor.unit_rows)
    with executor.opened(options.executor.address):
        return inspect_units.inspect(plan, executor.run, options.source.conflicts)
