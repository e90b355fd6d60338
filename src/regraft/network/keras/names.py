"""Cuts by what Keras calls them: a layer's name, or a count of `model.layers`.

A graph, a name and the layers that Keras has for the network enter; the path
of a module at which the network can be cut leaves, or an error that names the
nearest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from regraft.core.errors import UsageError
from regraft.network import INPUT
from regraft.network.graph import Graph, name_of
from regraft.network.keras.layers import Layer


def path_of(graph: Graph, name: str, layers: Sequence[Layer]) -> str | None:
    """Return the path at which the network is cut; None if the name is neither a layer's nor a count.

    name:   of one of `layers`, or a count of them: "249" freezes `layers[:249]`, "-4" all below the top but the last
            four.
    layers: Keras's, in Keras's order.

    Raises UsageError if the network can't be cut there.
    """
    if any(layer.name == name for layer in layers):
        return _by_name(graph, name, layers)
    if re.fullmatch(r"-?\d+", name):
        return _by_count(graph, int(name), layers)
    return None


def paths_by_count(graph: Graph, layers: Sequence[Layer]) -> dict[int, str]:
    """Return for each count of Keras's layers that can be frozen the path at which the network is then cut.

    Frozen are the weights of the first so many layers. Where several layers have exactly these below them, it is the
    one nearest to the last of the count.
    """
    below = _weights_below(layers)
    candidates: dict[frozenset[str], list[int]] = {}
    for number, layer in enumerate(layers):
        if is_cut(graph, layer):
            candidates.setdefault(below[layer.name], []).append(number)
    paths, frozen = {}, frozenset[str]()
    for count, layer in enumerate(layers, start=1):
        frozen |= {layer.name} if layer.tensors else set()
        if frozen in candidates:
            nearest = min(candidates[frozen], key=lambda number: (abs(number - count + 1), number))
            paths[count] = layers[nearest].path
    return paths


def is_cut(graph: Graph, layer: Layer) -> bool:
    """Whether the network has this layer of Keras's and can be cut where it ends."""
    return graph.tensors.issuperset(layer.tensors[:1]) and graph.is_cut(layer.path)


def _by_name(graph: Graph, name: str, layers: Sequence[Layer]) -> str:
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    layer = layers[numbers[name]]
    if is_cut(graph, layer):
        return layer.path
    below = _weights_below(layers)
    near = (other for other in layers if is_cut(graph, other))
    nearest = min(near, key=lambda o: (below[o.name] != below[name], abs(numbers[o.name] - numbers[name])))
    raise graph.refusal(name, _reason(graph, layer), nearest.name)


def _reason(graph: Graph, layer: Layer) -> str:
    if not graph.tensors.issuperset(layer.tensors[:1]):
        return "is part of Keras's top, which this network does not have"
    return str(graph.reason_not_a_cut(layer.path)) if layer.path else "ends inside a module of this network"


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
        raise UsageError(f"The cut {number} counts Keras's layers of {name_of(graph.network)}: {has}. {graph.hint}")
    paths = {0: INPUT, **paths_by_count(graph, layers)}
    if count in paths:
        return paths[count]
    below, above = [other for other in paths if other < count], [other for other in paths if other > count]
    near = [*sorted(below)[-1:], *sorted(above)[:1]]
    names = " and ".join(f"{other} ({paths[other]})" for other in near)
    raise UsageError(
        f"The cut {number} is inside a branch or beside a residual connection: no single layer has exactly Keras's "
        f"layers[:{count}] below it. The nearest counts that work are {names}. {graph.hint}"
    )
