"""The folder of an export: the model, its labels, a README and an example in the target's language, the certificate.

    export.json         what it is: format, precision, classes, preprocessing, versions, and the sha256 of all files
    labels.txt          the classes, a line each, in the order of the probabilities
    CERTIFICATE.json    and CERTIFICATE.txt

and the files of the format and of `templates/<format>/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from regraft.core import files
from regraft.core.errors import UsageError
from regraft.core.text import printable
from regraft.core.version import __version__
from regraft.model import calibration
from regraft.training.losses import EVEN

if TYPE_CHECKING:
    from regraft.exports.certificate import Certificate
    from regraft.model.model import Model
    from regraft.network.trunk import Trunk

DESCRIPTION, LABELS, CERTIFICATE = "export.json", "labels.txt", "CERTIFICATE"
MARK = '"made_by": "regraft"'


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise UsageError if `folder` can't become an export without destroying something else, or an earlier one."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir()) and folder.resolve() != Path.cwd()):
        return
    if not _is_own(folder):
        raise UsageError(f"{folder} already exists and is not an export of regraft's. Name another folder.")
    if not overwrite:
        raise UsageError(f"{folder} already exists. Add --overwrite to replace it, or name another folder.")


def _is_own(folder: Path) -> bool:
    """Tell a folder with an export and nothing else from what must not be replaced."""
    try:
        text = (folder / DESCRIPTION).read_text("utf-8")
        own = {DESCRIPTION, *json.loads(text)["files"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return MARK in text and folder.resolve() != Path.cwd() and set(names(folder)) <= own


def names(folder: Path) -> list[str]:
    """Return the files of a folder, those in folders of it too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def describe(model: Model, format: str, precision: str) -> dict[str, Any]:
    """Return as JSON-able data what users of the exported model need to know of it."""
    return {
        "made_by": "regraft",
        "regraft": __version__,
        "format": format,
        "precision": precision,
        "classes": list(model.classes),
        "multilabel": model.loss.multilabel,
        "thresholds": list(model.thresholds or [EVEN] * len(model.classes)) if model.loss.multilabel else None,
        "prediction_sets": _prediction_sets(model),
        "backbones": [_backbone(trunk) for trunk in model.trunks],
    }


def _prediction_sets(model: Model) -> dict[str, float]:
    """Return for each coverage that the model can give from which probability a label is in a set."""
    least = calibration.of_images(1, model.temperature, model.true_probabilities).least[0]
    known = zip(calibration.COVERAGES, least.tolist(), strict=True)
    return {str(coverage): probability for coverage, probability in known if probability == probability}  # not NaN


def _backbone(trunk: Trunk) -> dict[str, Any]:
    weights = {name: trunk.recipe.weights.get(name) for name in ("source", "name", "licence")}
    return {"name": trunk.recipe.architecture, "weights": weights, "preprocess": trunk.preprocess.to_dict()}


def write_texts(folder: Path, about: Mapping[str, Any], certificate: Certificate) -> None:
    """Write all files but the model's own."""
    labels = "".join(f"{printable(name)}\n" for name in about["classes"])
    values = {**about, "certificate": certificate}
    texts = {
        LABELS: labels,
        f"{CERTIFICATE}.json": _json({"made_by": "regraft", **certificate.to_dict()}),
        f"{CERTIFICATE}.txt": certificate.text() + "\n",
        **{name: render(f"{about['format']}/{name}", values) for name in _own(about)},
    }
    for name, text in texts.items():
        files.write_file(folder / name, text.encode())
    files.write_file(folder / DESCRIPTION, _json({**about, "files": sums(folder)}).encode())


def sums(folder: Path) -> dict[str, str]:
    """Return the sha256 of all files of a folder by name."""
    return {name: files.sha256_file(folder / name) for name in names(folder)}


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _own(about: Mapping[str, Any]) -> list[str]:
    folder = resources("regraft.exports").joinpath("templates", about["format"])
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def render(name: str, values: Mapping[str, Any]) -> str:
    """Return the text of a file of the folder `templates`."""
    root = resources("regraft.exports").joinpath("templates")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: root.joinpath(*name.split("/")).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(values)
