"""How the presets' networks were chosen: log loss of linear heads by 5-fold cross-validation of training parts.

Of each data set only the training part is read (of one without parts: all of it). Nothing is timed here.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np

import regraft
from regraft.pipeline import presets
from regraft.training.cross_validation import cross_validate
from regraft.training.examples import Examples


def main() -> None:
    """Print a line for each data set and network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", help="folders or archives of class folders")
    parser.add_argument("--backbones", nargs="*", default=presets.BEST)
    parser.add_argument("--store", help="folder of the feature store; none: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regraft-bench-") as folder:
        for source in arguments.sources:
            index = regraft.read(source)
            for backbone in arguments.backbones:
                print(source, backbone, _result(index.train or index, backbone, arguments.store or folder), flush=True)


def _result(index: regraft.Index, backbone: str, store: str) -> str:
    features = regraft.extract(index, backbone=backbone, views=0, store=store)
    labels = features.labels(features.index.classes)
    examples = Examples(np.asarray(features), labels, features.groups())
    (probabilities,) = cross_validate(examples, len(features.index.classes))
    losses = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1))
    right = probabilities.argmax(axis=1) == labels
    error = losses.std() / np.sqrt(len(losses))
    return f"n={len(labels)}: {100 * right.mean():.2f} %, log loss {losses.mean():.4f} ± {error:.4f}"


if __name__ == "__main__":
    main()
