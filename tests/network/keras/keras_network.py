"""Build a network of `keras.applications` with random weights, write its files and its features of random images.

Run by a process of its own, because TensorFlow and torch do not share one well: keras_network.py NAME FOLDER CUT…
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
from keras import applications

MODULES = {
    "InceptionV3": applications.inception_v3,
    "VGG16": applications.vgg16,
    "VGG19": applications.vgg19,
    "Xception": applications.xception,
    "ResNet50": applications.resnet50,
    "MobileNet": applications.mobilenet,
    "MobileNetV2": applications.mobilenet_v2,
}


def build(name, **arguments):
    keras.backend.clear_session()  # so that layers are counted from the start
    return getattr(MODULES[name], name)(weights=None, **arguments)


def randomise(model, rng):
    """Draw biases and the statistics of batch normalisation, which Keras starts at 0 and 1."""
    for layer in model.layers:
        weights = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            shape, has_gamma = weights[0].shape, len(weights) == 4
            drawn = [rng.normal(0, 0.3, shape), rng.normal(0, 0.3, shape), rng.uniform(0.3, 2, shape)]
            layer.set_weights([rng.uniform(0.5, 1.5, shape)] * has_gamma + drawn)
        elif len(weights) == 2:
            layer.set_weights([weights[0], rng.normal(0, 0.1, weights[1].shape)])


def copy(source, target):
    pairs = zip(weighted(source), weighted(target), strict=False)  # the top is the longer one's own
    for of_source, of_target in pairs:
        of_target.set_weights(of_source.get_weights())


def weighted(model):
    return [layer for layer in model.layers if layer.get_weights()]


def save(model, folder, name):
    model.save_weights(folder / f"{name}.weights.h5")
    model.save(folder / f"{name}.keras")
    model.save(folder / f"{name}.h5")


def main(name, folder, *cuts):
    folder, rng = Path(folder), np.random.default_rng(0)
    whole = build(name, classifier_activation=None)
    randomise(whole, rng)
    (folder / "layers.json").write_text(json.dumps([[layer.name, type(layer).__name__] for layer in whole.layers]))
    save(whole, folder, "top")
    native = whole.input_shape[1]
    outputs = {}
    for size in (native, 161 if native == 224 else 258):  # an even side and an odd one
        base = build(name, include_top=False, input_shape=(size, size, 3), pooling="avg")
        copy(whole, base)
        if size == native:
            save(base, folder, "notop")
        images = rng.integers(0, 256, (2, size, size, 3))
        shifted = np.roll(images, 1, 1), np.roll(images, 1, 2)
        images = (images + sum(shifted)) // 3  # neighbours are alike, as in photographs
        inputs = MODULES[name].preprocess_input(images.astype("float32"))
        probe = keras.Model(base.input, [*(base.get_layer(cut).output for cut in cuts), base.output])
        features = probe.predict(inputs, verbose=0)
        outputs |= {f"{size} {cut}": values for cut, values in zip([*cuts, "pooled"], features, strict=True)}
        outputs[f"{size} images"] = images.astype("uint8")
        if size == native:
            outputs[f"{size} logits"] = whole.predict(inputs, verbose=0)
    np.savez(folder / "features.npz", **outputs)


main(*sys.argv[1:])
