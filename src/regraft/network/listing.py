"""The list of backbones for the terminal: a row each, with the weights that are on this disk."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from regraft.core.errors import UnknownName
from regraft.core.text import count, table
from regraft.network import catalog
from regraft.network.backbones import Backbone, Facts
from regraft.network.weights import builtin, hub
from regraft.network.workaround_torchvision_nms import import_timm

_BUILT = 20  # where more networks match, they are not built: parameters and width are left out


def rows(pattern: str | None = None) -> list[dict[str, Any]]:
    """Return a row per backbone: name, architecture, parameters, input, licence, width, weights.

    pattern: a wildcard ("resnet*") or a part of the name ("vgg"); None lists the common names only, and needs no timm.
             When more than 20 match, parameters (a count) and width are "" where they are not written down.
    Raises UnknownName if nothing matches.
    """
    entries = _matching(pattern)
    return [_row(entry, built=len(entries) <= _BUILT) for entry in entries]


def text(listed: Sequence[Mapping[str, Any]]) -> str:
    """Return a listing as aligned lines for the terminal."""
    cells = [
        [
            row["name"],
            f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "",
            row["input"],
            str(row["width"]),
            row["licence"],
            "yes" if row["weights"] else "",
        ]
        for row in listed
    ]
    titles = ["name", "parameters", "input", "features", "licence", "on this disk"]
    lines = "\n".join(table([titles, *cells], left=len(titles)))
    hint = f"{count(listed, 'network')}. `regraft backbones 'resnet*'` searches all that timm knows; a few show more."
    return f"{lines}\n\n{hint} `regraft backbones NAME --cuts` lists where one can be cut."


def weights_on_disk(backbone: Backbone) -> str:
    """Return where pretrained weights of a backbone are on this disk, or "" if they are not."""
    return str(builtin.find(backbone) or hub.find(backbone) or "")


def _matching(pattern: str | None) -> list[Backbone]:
    if pattern is None:
        return list(catalog.families())
    common = {name for entry in catalog.families() for name in (entry.name, entry.architecture)}
    names = import_timm().list_models()
    entries = [*catalog.families(), *(Backbone(name=n, architecture=n) for n in names if n not in common)]
    wildcard = pattern if re.search(r"[*?\[]", pattern) else f"*{pattern}*"
    matching = [e for e in entries if fnmatch.filter((e.name, e.architecture), wildcard)]
    if not matching:
        raise UnknownName.of("backbone", pattern, [*names, *(entry.name for entry in catalog.families())])
    return matching


def _row(entry: Backbone, *, built: bool) -> dict[str, Any]:
    facts = entry.facts
    return {
        "name": entry.name,
        "architecture": entry.architecture,
        **(_from_timm(entry, built=built) if facts is None else _written(facts)),
        "weights": weights_on_disk(entry),
    }


def _written(facts: Facts) -> dict[str, Any]:
    return {
        "parameters": facts.parameters,
        "input": f"{facts.size}x{facts.size}",
        "licence": facts.licence,
        "width": facts.width,
    }


def _from_timm(entry: Backbone, *, built: bool) -> dict[str, Any]:
    config = import_timm().models.get_pretrained_cfg(entry.timm_name)
    parameters, width = _measured(entry) if built else ("", "")
    return {
        "parameters": parameters,
        "input": "x".join(map(str, config.input_size[1:])),
        "licence": config.license or "",
        "width": width,
    }


def _measured(entry: Backbone) -> tuple[int, int]:
    """Return the count of parameters and the width of the pooled features; no memory is taken for the weights."""
    import torch

    with torch.device("meta"):
        network: Any = catalog.build(entry)
    width = getattr(network, "head_hidden_size", None) or network.num_features
    return sum(parameter.numel() for parameter in network.parameters()), width
