"""A folder that a model hub takes as it is: the model folder, with the model card as its README.md.

Whoever downloads it opens it with `regraft.load`. Small pictures and names of training images, which a model folder
may have, do not go along: photographs don't leave their machine by a model.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from regraft.core import files
from regraft.exports.formats import Plan, Run
from regraft.exports.whole import reference

PRECISIONS = ("float32",)
MODULES = ()
EXTRA = ""
VERSIONS = ()

ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"  # hubs keep large files in Git LFS


def write(plan: Plan, folder: Path) -> None:
    """Write the model folder and its card."""
    model = plan.model
    if model.evidence:
        model = dataclasses.replace(model, evidence=dataclasses.replace(model.evidence, named=()))
    model.save(folder, card=plan.card)
    files.write_file(folder / ".gitattributes", ATTRIBUTES.encode())


def load(folder: Path) -> Run:
    """Return what the folder gives when it is opened again."""
    from regraft.model.model import load
    from regraft.network.trunk import Choice

    return reference(load(folder, Choice("torch", "float32")))
