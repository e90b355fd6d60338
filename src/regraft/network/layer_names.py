"""Names of layers: modules' own paths, what Keras calls them, stages counted from the top.

A graph, a name and the layers that Keras has for the network enter; the path
of a module at which the network can be cut leaves, or an error that names the
nearest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from regraft.core.errors import UnknownName, UsageError
from regraft.network import INPUT, POOLED
from regraft.network.graph import Graph, name_of
from regraft.network.keras import names
from regraft.network.keras.layers import Layer

_DEPTH = re.compile(r"top-(\d+)-stages?")


def path_of(graph: Graph, name: str, layers: Sequence[Layer] = ()) -> str:
    """Return the path at which the network is cut: "pooled", "input" or a module's.

    name:   one of these, the name of one of `layers`, a count of them ("249" freezes Keras's `layers[:249]`, "-4" all
            below the top but the last four), or "top-2-stages", which freezes all but the last two.
    layers: Keras's, in Keras's order.

    Raises UnknownName if there is no such layer, UsageError if the network can't be cut there.
    """
    path = names.path_of(graph, name, layers)
    if path is not None:
        return path
    if depth := _DEPTH.fullmatch(name):
        return _by_depth(graph, int(depth[1]), name)
    return _by_path(graph, name, layers)


def stage_ends(graph: Graph) -> list[str]:
    """Return the paths of the modules that end a stage, by timm's list, from the input up."""
    listed = getattr(graph.network, "feature_info", None) or []
    ends = [stage["module"] for stage in getattr(listed, "info", listed)]
    if any(end not in graph.outputs for end in ends):
        return []
    weights = [graph.parameters_below[graph.node(end)] for end in ends]
    return [end for number, end in enumerate(ends) if weights[number] not in weights[:number]]


def path_below_stages(graph: Graph, count: int) -> str:
    """Return the highest cut with no more weights below it than lie below the last `count` stages."""
    ends = stage_ends(graph)
    if count == len(ends):
        return INPUT
    frozen = graph.parameters_below[graph.node(ends[-1 - count])]
    low = [path for path in graph.cuts if graph.parameters_below[graph.node(path)] <= frozen]
    return max(low, key=lambda path: (graph.position(path), -len(path)))


def _by_depth(graph: Graph, count: int, name: str) -> str:
    known = len(stage_ends(graph))
    if not 1 <= count <= known:
        expected = f"top-1-stage to top-{known}-stages" if known else "another cut: its stages are not known"
        raise UsageError(f"The cut is {name!r}; {name_of(graph.network)} takes {expected}. {graph.hint}")
    return path_below_stages(graph, count)


def _by_path(graph: Graph, path: str, layers: Sequence[Layer]) -> str:
    if graph.is_cut(path):
        return path
    if path in graph.outputs:
        reason = str(graph.reason_not_a_cut(path))
    elif path in dict(graph.network.named_modules(remove_duplicate=False)):
        reason = "has no output of its own"
    else:
        known = {layer.name for layer in layers} | {POOLED, INPUT, *graph.cuts}
        raise UnknownName.of("cut", path, known, graph.hint)
    raise graph.refusal(path, reason, _nearest(graph, path))


def _nearest(graph: Graph, path: str) -> str:
    """Return the smallest module around `path` that is a cut, or else the cut next to it."""
    parts = path.split(".")
    around = [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
    end = max((graph.position(p) for p in graph.outputs if (p + ".").startswith(path + ".")), default=0)
    beside = sorted(graph.cuts, key=lambda cut: (abs(graph.position(cut) - end), len(cut)))
    return next((cut for cut in [*around, *beside] if cut in graph.cuts), POOLED)
