"""How Keras names and orders the layers of a network; the families' files describe their networks with it.

A family writes down its layers as `keras.applications` makes them; they leave
in the order of `model.layers`, each with the names of its weights' tensors.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from regraft.network import INPUT, POOLED


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of Keras's, and what is the same in timm's network.

    name:    Keras's; without one in its code, the name that a fresh session counts up.
    kind:    its class in Keras.
    inputs:  the names of the layers that it takes.
    tensors: the names of the network's tensors that are its weights, in Keras's order.
    path:    the path of the module whose output is the layer's; "" if no module ends there.
    top:     whether Keras has it only with `include_top`.
    """

    name: str
    kind: str = ""
    inputs: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    path: str = ""
    top: bool = False


class Layers:
    """The layers of one network, in the order in which Keras's code makes them.

    top: whether Keras has the layers that are added next only with `include_top`.
    """

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}
        self._counts: Counter[str] = Counter()
        self.top = False
        self.input = self.add("InputLayer", name="input_layer", path=INPUT)

    def add(self, kind: str, *inputs: str, name: str = "", tensors: tuple[str, ...] = (), path: str = "") -> str:
        """Add a layer, and return its name: `name`, or else the one that Keras counts up."""
        auto = snake_case(kind)
        if not name:
            name = f"{auto}_{self._counts[auto]}" if self._counts[auto] else auto
            self._counts[auto] += 1
        self._layers[name] = Layer(name=name, kind=kind, inputs=inputs, tensors=tensors, path=path, top=self.top)
        return name

    def convolution(self, x: str, module: str, name: str = "", *, bias: bool = False, path: str | None = None) -> str:
        """Add a convolution with the weights of the module at `module`, where it also ends, if not at `path`."""
        tensors = (f"{module}.weight", f"{module}.bias") if bias else (f"{module}.weight",)
        return self.add("Conv2D", x, name=name, tensors=tensors, path=module if path is None else path)

    def depthwise(self, x: str, module: str, name: str) -> str:
        """Add a convolution of each channel by itself."""
        return self.add("DepthwiseConv2D", x, name=name, tensors=(f"{module}.weight",), path=module)

    def norm(self, x: str, module: str, name: str = "", *, scale: bool = True, path: str = "") -> str:
        """Add a batch normalisation; scale: whether it has a gamma in Keras."""
        parts = ("weight", "bias", "running_mean", "running_var")[not scale :]
        tensors = tuple(f"{module}.{part}" for part in parts)
        return self.add("BatchNormalization", x, name=name, tensors=tensors, path=path)

    def dense(self, x: str, module: str, name: str, path: str = "") -> str:
        """Add a dense layer with the weights of the module at `module`."""
        return self.add("Dense", x, name=name, tensors=(f"{module}.weight", f"{module}.bias"), path=path)

    def finish(self, x: str, classifier: str, pool: str = "") -> tuple[Layer, ...]:
        """Add the top of most networks, the global mean and the classes; return all layers in Keras's order."""
        self.top = True
        x = self.add("GlobalAveragePooling2D", x, name=pool, path=POOLED)
        self.dense(x, classifier, "predictions")
        return self.in_order()

    def in_order(self) -> tuple[Layer, ...]:
        """Return the layers as `model.layers` has them.

        Farthest from the output first; layers equally far in the order in which a search from the output, along
        each layer's inputs, comes to them. Source: `map_graph` in keras/src/ops/function.py.
        """
        depth: dict[str, int] = {}
        for name in reversed(self._layers):  # those that take a layer are made after it
            depth.setdefault(name, 0)
            for source in self._layers[name].inputs:
                depth[source] = max(depth.get(source, 0), depth[name] + 1)
        seen: dict[str, int] = {}
        waiting = [next(reversed(self._layers))]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen[name] = len(seen)
                waiting.extend(reversed(self._layers[name].inputs))
        return tuple(sorted(self._layers.values(), key=lambda layer: (-depth[layer.name], seen[layer.name])))


def snake_case(kind: str) -> str:
    """Return a class's name as Keras writes a layer's: "DepthwiseConv2D" → "depthwise_conv2d"."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
