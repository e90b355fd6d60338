"""Names of layers: modules' own paths, Keras's layers by name or by count, stages counted from the top.

A graph, a name and the layers that Keras has for the network enter; the path
of a module at which the network can be cut leaves, or an error that names the
nearest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from regraft.core.errors import UnknownName, UsageError
from regraft.network.backbones import INPUT, POOLED, Layer
from regraft.network.graph import Graph, name_of

_DEPTH = re.compile(r"top-(\d+)-stages?")


def path_of(graph: Graph, name: str, layers: Sequence[Layer] = ()) -> str:
    """Return the path at which the network is cut: "pooled", "input" or a module's.

    name:   one of these, the name of one of `layers`, a count of them ("249" freezes Keras's `layers[:249]`, "-4" all
            below the top but the last four), or "top-2-stages", which freezes all but the last two.
    layers: Keras's, in Keras's order.

    Raises UnknownName if there is no such layer, UsageError if the network can't be cut there.
    """
    if any(layer.name == name for layer in layers):
        return _by_layer(graph, name, layers)
    if re.fullmatch(r"-?\d+", name):
        return _by_count(graph, int(name), layers)
    if depth := _DEPTH.fullmatch(name):
        return _by_depth(graph, int(depth[1]), name)
    return _by_path(graph, name, layers)


def paths_by_count(graph: Graph, layers: Sequence[Layer]) -> dict[int, str]:
    """Return for each count of Keras's layers that can be frozen the path at which the network is then cut.

    Frozen are the weights of the first so many layers. Where several layers have exactly these below them, it is the
    one nearest to the last of the count.
    """
    below = _weights_below(layers)
    candidates: dict[frozenset[str], list[int]] = {}
    for number, layer in enumerate(layers):
        if layer_is_cut(graph, layer):
            candidates.setdefault(below[layer.name], []).append(number)
    paths, frozen = {}, frozenset[str]()
    for count, layer in enumerate(layers, start=1):
        frozen |= {layer.name} if layer.tensors else set()
        if frozen in candidates:
            nearest = min(candidates[frozen], key=lambda number: (abs(number - count + 1), number))
            paths[count] = layers[nearest].path
    return paths


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


def _by_layer(graph: Graph, name: str, layers: Sequence[Layer]) -> str:
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    layer = layers[numbers[name]]
    if layer_is_cut(graph, layer):
        return layer.path
    below = _weights_below(layers)
    near = (other for other in layers if layer_is_cut(graph, other))
    nearest = min(near, key=lambda o: (below[o.name] != below[name], abs(numbers[o.name] - numbers[name])))
    raise _refused(graph, name, _reason(graph, layer), nearest.name)


def _reason(graph: Graph, layer: Layer) -> str:
    if not graph.tensors.issuperset(layer.tensors[:1]):
        return "is part of Keras's top, which this network does not have"
    return str(graph.reason_not_a_cut(layer.path)) if layer.path else "ends inside a module of this network"


def layer_is_cut(graph: Graph, layer: Layer) -> bool:
    """Whether the network has this layer of Keras's and can be cut where it ends."""
    return graph.tensors.issuperset(layer.tensors[:1]) and graph.is_cut(layer.path)


def _weights_below(layers: Iterable[Layer]) -> dict[str, frozenset[str]]:
    """Return for each layer the names of the layers with weights that it is computed by, itself among them."""
    below: dict[str, frozenset[str]] = {}
    for layer in layers:
        itself = {layer.name} if layer.tensors else set()
        below[layer.name] = frozenset(itself).union(*(below[source] for source in layer.inputs))
    return below


def _by_count(graph: Graph, number: int, layers: Sequence[Layer]) -> str:
    base = sum(not layer.top for layer in layers)
    count = number if number >= 0 else base + number
    if not 0 <= count <= len(layers):
        has = f"it has {base}, {len(layers)} with the top" if layers else "Keras has no such network"
        raise UsageError(f"The cut {number} counts Keras's layers of {name_of(graph.network)}: {has}. {_hint(graph)}")
    paths = {0: INPUT, **paths_by_count(graph, layers)}
    if count in paths:
        return paths[count]
    below, above = [other for other in paths if other < count], [other for other in paths if other > count]
    near = [*sorted(below)[-1:], *sorted(above)[:1]]
    names = " and ".join(f"{other} ({paths[other]})" for other in near)
    raise UsageError(
        f"The cut {number} is inside a branch or beside a residual connection: no single layer has exactly Keras's "
        f"layers[:{count}] below it. The nearest counts that work are {names}. {_hint(graph)}"
    )


def _by_depth(graph: Graph, count: int, name: str) -> str:
    known = len(stage_ends(graph))
    if not 1 <= count <= known:
        expected = f"top-1-stage to top-{known}-stages" if known else "another cut: its stages are not known"
        raise UsageError(f"The cut is {name!r}; {name_of(graph.network)} takes {expected}. {_hint(graph)}")
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
        raise UnknownName.of("cut", path, known, _hint(graph))
    raise _refused(graph, path, reason, _nearest(graph, path))


def _nearest(graph: Graph, path: str) -> str:
    """Return the smallest module around `path` that is a cut, or else the cut next to it."""
    parts = path.split(".")
    around = [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
    end = max((graph.position(p) for p in graph.outputs if (p + ".").startswith(path + ".")), default=0)
    beside = sorted(graph.cuts, key=lambda cut: (abs(graph.position(cut) - end), len(cut)))
    return next((cut for cut in [*around, *beside] if cut in graph.cuts), POOLED)


def _refused(graph: Graph, name: str, reason: str, nearest: str) -> UsageError:
    return UsageError(f"The cut {name!r} {reason}. The nearest cut that works is {nearest!r}. {_hint(graph)}")


def _hint(graph: Graph) -> str:
    return f"List them with `regraft backbones {name_of(graph.network)} --cuts`."
