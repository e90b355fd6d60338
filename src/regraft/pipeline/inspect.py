"""`regraft.inspect`: what is in a source, by looking at every image, and on request by comparing their features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.core.options import takes_options
from regraft.data import read as reading
from regraft.pipeline import audit
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import AuditOptions

if TYPE_CHECKING:
    from regraft.audit.findings import Audit
    from regraft.data.inspect import Inspection


@takes_options(AuditOptions)
def inspect(source: Any, *, deep: bool = False, options: AuditOptions) -> Inspection | Audit:
    """Return what is in a source: every image is decoded, and broken ones are marked; they are never an error.

    source: as for `read`, or an Index.
    deep:   also look for near-duplicates, likely label errors and outliers, by features: the result is an Audit.
            The options but `conflicts` and `outside` are for this.
    Raises DataError if nothing in the source can be used.
    """
    if deep:
        return audit.audit(source, options)
    from regraft.data import inspect as inspection

    return inspection.inspect(tied(reading.read(source, options=options.source), options.store))
