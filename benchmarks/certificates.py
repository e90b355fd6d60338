"""Certificates: what each kind of model gives in each format, against the model itself.

Small models of every kind that an export has to carry are trained on every tenth photograph, and exported to each
format whose packages are installed. Compared are every twentieth photograph of the validation part, and the made ones.
A line of the table for each: the size of the model's files, the largest difference of a probability, the 95th
percentile, labels that changed, accuracies, the made images' largest difference, or why it was refused. Models that are
there already are not trained again.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _bench import parser, photographs

import regraft
from regraft.core import plugins
from regraft.core.errors import RegraftError
from regraft.exports import formats

LITE0 = {"backbone": "efficientnet_lite0", "preset": "fast"}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "linear, crop": LITE0,
    "linear, pad": {**LITE0, "resize": "pad"},
    "linear, squash": {**LITE0, "resize": "squash"},
    "joined": {"backbone": "efficientnet_lite0@192+efficientnet_lite2@224"},
    "tail": {**LITE0, "cut": "top-1-stage", "tail": True, "epochs": 2, "tail_epochs": 1},
    "sigmoid": {**LITE0, "loss": "sigmoid", "head": "mlp", "epochs": 5},
    "multilabel": LITE0,
    "Keras file": {"backbone": "mobilenetv2_100"},
}


def main() -> None:
    words = parser(__doc__, repeats=1)
    words.add_argument("--work", type=Path, default=Path("build/certificates"), help="folder for models and exports")
    words.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    words.add_argument("--formats", nargs="+", default=["onnx", "openvino", "torch", "litert", "coreml"])
    words.add_argument(
        "--keras", type=Path, help="the weights of MobileNetV2 as Keras has them, for the kind Keras file"
    )
    arguments = words.parse_args()
    warnings.simplefilter("ignore")
    print("| model | format | size, MB | images | largest | 95th | changed | accuracy, export's | made, largest |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with photographs(arguments.data, "cats-dogs") as source:
        few = every(source, arguments.work / "photographs")
        for kind in arguments.kinds:
            if kind != "Keras file" or arguments.keras:
                certify(kind, few, arguments)


def every(source: Path, few: Path) -> Path:
    """Return a folder with every tenth photograph for training and every twentieth for validation."""
    for part, step in (("train", 10), ("validation", 20)):
        for path in sorted((source / part).glob("*/*.jpg"))[::step]:
            target = few / part / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return few


def certify(kind: str, few: Path, arguments: argparse.Namespace) -> None:
    model = trained(kind, few, arguments)
    for name in arguments.formats:
        plugin = plugins.load(formats, name)
        if missing := [module for module in plugin.MODULES if importlib.util.find_spec(module) is None]:
            print(f"| {kind} | {name} | skipped: {', '.join(missing)} not installed |", flush=True)
            continue
        for precision in plugin.PRECISIONS:
            print(f"| {kind} | {name} {precision} | {line(model, name, precision, few, arguments.work)} |", flush=True)


def trained(kind: str, few: Path, arguments: argparse.Namespace) -> Any:
    folder = arguments.work / "models" / kind.replace(", ", "-").replace(" ", "-")
    if folder.exists():
        return regraft.load(folder)
    source = multilabel_table(few) if kind == "multilabel" else few
    weights = {"weights": str(arguments.keras)} if kind == "Keras file" else {}
    return regraft.train(source, folder, **KINDS[kind], **weights).model


def multilabel_table(few: Path) -> Path:
    """Return a CSV in which each image has its class, and `wide` if it is."""
    from PIL import Image

    table = few.parent / "multilabel.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels"])
        for path in sorted((few / "train").glob("*/*.jpg")):
            with Image.open(path) as image:
                wide = ["wide"] if image.width > image.height else []
            writer.writerow([path.relative_to(table.parent).as_posix(), "; ".join([path.parent.name, *wide])])
    return table


def line(model: Any, name: str, precision: str, few: Path, work: Path) -> str:
    calibrate = {"calibrate": few / "train"} if precision == "int8" else {}
    try:
        export = regraft.export(
            model,
            work / "exports" / f"{name}-{precision}",
            to=name,
            precision=precision,
            check=few / "validation",
            overwrite=True,
            **calibrate,
        )
    except RegraftError as error:
        return "refused: " + " ".join(str(error).split())[:200]
    figures, made = export.certificate.to_dict()["photographs"], export.certificate.to_dict()["made"]
    size = sum(bytes for file, bytes in export.sizes.items() if file.startswith("model"))
    accuracies = " / ".join(f"{figures[name]:.3f}" for name in ("accuracy", "exported_accuracy") if name in figures)
    return (
        f"{size / 1e6:.1f} | {figures['images']} | {figures['largest_difference']} | {figures['percentile_95']} | "
        f"{figures['labels_changed']} | {accuracies} | {made['largest_difference']}"
    )


if __name__ == "__main__":
    main()
