"""Names of places in a network: modules' own paths, Keras's layers by name or by count, stages counted from the top.

A graph, a name and what Keras calls the network's layers enter; the path of a
module at which the network can be cut leaves, or an error that names the
nearest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from regraft.core.errors import UnknownName, UsageError
from regraft.network.backbones import Layer
from regraft.network.graph import Graph, name_of
from regraft.network.keras.layers import NOTHING, WHOLE

_DEPTH = re.compile(r"top-(\d+)-stages?")


def find(graph: Graph, name: str, layers: Sequence[Layer] = ()) -> str:
    """Return the path at which the network is cut: "pooled", "input" or a module's.

    name:   one of these, the name of one of `layers`, a count of them ("249" freezes Keras's `layers[:249]`, "-4" all
            below the top but the last four), or "top-2-stages", which freezes all but the last two.
    layers: Keras's, in Keras's order.

    Raises UnknownName if there is no such place, UsageError if the network can't be cut there.
    """
    if any(layer.name == name for layer in layers):
        return _by_layer(graph, name, layers)
    if re.fullmatch(r"-?\d+", name):
        return _by_count(graph, int(name), layers)
    if depth := _DEPTH.fullmatch(name):
        return _by_depth(graph, int(depth[1]), name)
    return _by_path(graph, name, layers)


def counts(graph: Graph, layers: Sequence[Layer]) -> dict[int, str]:
    """Return for each count of Keras's layers that can be frozen the path at which the network is then cut.

    Frozen are the weights of the first so many layers. Where several places have exactly these below them, it is the
    one nearest to the last of the layers.
    """
    below = _weights_below(layers)
    places: dict[frozenset[str], list[int]] = {}
    for number, layer in enumerate(layers):
        if is_cut(graph, layer):
            places.setdefault(below[layer.name], []).append(number)
    found, frozen = {}, frozenset[str]()
    for count, layer in enumerate(layers, start=1):
        frozen |= {layer.name} if layer.tensors else set()
        if frozen in places:
            nearest = min(places[frozen], key=lambda number: (abs(number - count + 1), number))
            found[count] = layers[nearest].place
    return found


def stages(graph: Graph) -> list[str]:
    """Return the paths of the modules at which timm says that a stage ends, from the input up."""
    told = getattr(graph.network, "feature_info", None) or []
    ends = [stage["module"] for stage in getattr(told, "info", told)]
    if any(end not in graph.places for end in ends):
        return []
    weights = [graph.learned[graph.places[end][0]] for end in ends]
    return [end for number, end in enumerate(ends) if weights[number] not in weights[:number]]


def below_stages(graph: Graph, count: int) -> str:
    """Return the highest cut with no more weights below it than lie below the last `count` stages."""
    ends = stages(graph)
    if count == len(ends):
        return NOTHING
    frozen = graph.learned[graph.places[ends[-1 - count]][0]]
    low = [path for path in graph.cuts if graph.learned[graph.places[path][0]] <= frozen]
    return max(low, key=lambda path: (graph.position(path), -len(path)))


def _by_layer(graph: Graph, name: str, layers: Sequence[Layer]) -> str:
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    layer = layers[numbers[name]]
    if is_cut(graph, layer):
        return layer.place
    below = _weights_below(layers)
    near = (other for other in layers if is_cut(graph, other))
    nearest = min(near, key=lambda o: (below[o.name] != below[name], abs(numbers[o.name] - numbers[name])))
    raise _refused(graph, name, _complaint(graph, layer), nearest.name)


def _complaint(graph: Graph, layer: Layer) -> str:
    if not graph.tensors.issuperset(layer.tensors[:1]):
        return "is part of Keras's top, which this network does not have"
    return str(graph.complaint(layer.place)) if layer.place else "ends inside a module of this network"


def is_cut(graph: Graph, layer: Layer) -> bool:
    """Whether the network has a layer of Keras's and can be cut where it ends."""
    return graph.tensors.issuperset(layer.tensors[:1]) and graph.is_cut(layer.place)


def _weights_below(layers: Iterable[Layer]) -> dict[str, frozenset[str]]:
    """Return for each layer which ones with weights it is computed by, itself among them."""
    below: dict[str, frozenset[str]] = {}
    for layer in layers:
        own = {layer.name} if layer.tensors else set()
        below[layer.name] = frozenset(own).union(*(below[source] for source in layer.inputs))
    return below


def _by_count(graph: Graph, number: int, layers: Sequence[Layer]) -> str:
    base = sum(not layer.top for layer in layers)
    count = number if number >= 0 else base + number
    if not 0 <= count <= len(layers):
        has = f"it has {base}, {len(layers)} with the top" if layers else "Keras has no such network"
        raise UsageError(f"The cut {number} counts Keras's layers of {name_of(graph.network)}: {has}. {_hint(graph)}")
    good = {0: NOTHING, **counts(graph, layers)}
    if count in good:
        return good[count]
    below, above = [other for other in good if other < count], [other for other in good if other > count]
    near = [*sorted(below)[-1:], *sorted(above)[:1]]
    told = " and ".join(f"{other} ({good[other]})" for other in near)
    raise UsageError(
        f"The cut {number} is inside a branch or beside a residual connection: Keras's layers[:{count}] are not all "
        f"that is below one place. The nearest that work are {told}. {_hint(graph)}"
    )


def _by_depth(graph: Graph, count: int, name: str) -> str:
    known = len(stages(graph))
    if not 1 <= count <= known:
        expected = f"top-1-stage to top-{known}-stages" if known else "another cut: its stages are not known"
        raise UsageError(f"The cut is {name!r}; {name_of(graph.network)} takes {expected}. {_hint(graph)}")
    return below_stages(graph, count)


def _by_path(graph: Graph, path: str, layers: Sequence[Layer]) -> str:
    if graph.is_cut(path):
        return path
    if path in graph.places:
        complaint = str(graph.complaint(path))
    elif path in dict(graph.network.named_modules(remove_duplicate=False)):
        complaint = "has no output of its own"
    else:
        known = {layer.name for layer in layers} | {WHOLE, NOTHING, *graph.cuts}
        raise UnknownName.of("cut", path, known, _hint(graph))
    raise _refused(graph, path, complaint, _nearest(graph, path))


def _nearest(graph: Graph, path: str) -> str:
    """Return the smallest module around `path` that is a good cut, or else the good cut next to it."""
    parts = path.split(".")
    around = [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
    place = max((graph.position(p) for p in graph.places if (p + ".").startswith(path + ".")), default=0)
    beside = sorted(graph.cuts, key=lambda good: (abs(graph.position(good) - place), len(good)))
    return next((good for good in [*around, *beside] if good in graph.cuts), WHOLE)


def _refused(graph: Graph, name: str, complaint: str, nearest: str) -> UsageError:
    return UsageError(f"The cut {name!r} {complaint}. The nearest cut that works is {nearest!r}. {_hint(graph)}")


def _hint(graph: Graph) -> str:
    return f"List them with `regraft backbones {name_of(graph.network)} --cuts`."
