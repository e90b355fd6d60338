"""`regraft.export`: from a model to a folder for another runtime, with the certificate that it gives the same there."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core import files, plugins
from regraft.core.errors import DataError, RefusedFile, RegraftError, UsageError, first_line
from regraft.core.options import takes_options
from regraft.core.progress import log, preparing, progress
from regraft.core.results import Result
from regraft.core.text import count, listed
from regraft.exports import formats
from regraft.exports.certificate import GATES, Certificate, Compared, Group, compare
from regraft.exports.options import ExportOptions

if TYPE_CHECKING:
    from regraft.data.index import Row
    from regraft.exports.formats import Run
    from regraft.model.model import Model

CALIBRATION = 100  # images that int8 takes its ranges from


@dataclass(frozen=True, kw_only=True, repr=False)
class Export(Result):
    """An exported model: the folder, and the certificate.

    sizes: bytes of the files by name.
    """

    folder: Path
    certificate: Certificate
    sizes: dict[str, int]

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Export: {self.certificate.format} in {self.certificate.precision}, {self.folder}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate and the sizes as JSON-able data."""
        return {"folder": str(self.folder), "sizes": self.sizes, "certificate": self.certificate.to_dict()}

    def text(self) -> str:
        """Return the certificate as lines for a terminal."""
        return self.certificate.text()


@takes_options(ExportOptions)
def export(
    model: Model, output: str | Path, *, check: Any = None, calibrate: Any = None, options: ExportOptions
) -> Export:
    """Write a model as a folder for another runtime; nothing is written unless it gives there what the model gives.

    model:     from `load`, `fit`, or a Report.
    output:    folder for the export; it must be new or empty, or `overwrite` set where it holds an earlier export.
    check:     images to compare the two on, as for `Model.predict`, beside those that are made for it.
    calibrate: images that int8 takes its ranges from, likewise; they are compared too, if there are no others.
    Raises UsageError for what the format can't have, DataError if no image can be read, RefusedFile if the two differ.
    """
    from regraft.exports import folder as folders
    from regraft.exports.whole import reference, whole
    from regraft.pipeline.report import card

    output, plugin = Path(output).absolute(), plugins.load(formats, options.to)
    _check(plugin, options, calibrate)
    folders.check_target(output, overwrite=options.overwrite)
    module = whole(model)
    photographs = _readable(_rows(check if check is not None else calibrate))
    plan = formats.Plan(
        model=model,
        card=card(model),
        whole=module,
        precision=options.precision,
        about=folders.describe(model, options.to, options.precision),
        calibration=_calibration(calibrate) if options.precision == "int8" else (),
        runtime=options.runtime,
    )
    log.info("Converting the model to %s, which may take minutes.", options.to)
    with files.replacing_folder(output) as fresh:
        with preparing(f"Converting the model to {options.to}"), _converting(options.to):
            plugin.write(plan, fresh)
            run = plugin.load(fresh)
        log.info("Comparing what it says with what the model says.")
        answers = _Answers(model, reference(model), run, options.precision)
        certificate = Certificate(
            format=options.to,
            precision=options.precision,
            photographs=answers.of_rows(photographs),
            made=answers.of_made(),
            versions=_versions(plugin),
            files=folders.sums(fresh),
        )
        _check_held(certificate)
        folders.write_texts(fresh, plan.about, certificate)
        sizes = {name: (fresh / name).stat().st_size for name in folders.names(fresh)}
    return Export(folder=output, certificate=certificate, sizes=sizes)


def _check(plugin: Any, options: ExportOptions, calibrate: Any) -> None:
    """Raise UsageError for what the format does not have, or this machine, before anything is read."""
    if options.precision not in plugin.PRECISIONS:
        raise UsageError(
            f"--to {options.to} can't have --precision {options.precision}; it has {listed(plugin.PRECISIONS)}."
        )
    if missing := [name for name in plugin.MODULES if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"--to {options.to} needs {listed(missing)}. Install it with: pip install 'regraft[{plugin.EXTRA}]'"
        )
    if hasattr(plugin, "check"):
        plugin.check(options.runtime)
    if options.precision == "int8" and calibrate is None:
        raise UsageError("--precision int8 takes its ranges from images of yours; name some with --calibrate IMAGES.")


def _rows(images: Any) -> Sequence[Row]:
    """Return the images that can be used; say which can't."""
    from regraft.data.read import read_inputs

    if images is None:
        log.warning("No images of yours are compared; name some with --check IMAGES.")
        return ()
    index = read_inputs(images)
    for row in index.broken:
        log.warning("Left out, broken: %s: %s", row.path, row.reason)
    if not index.used.rows:
        raise DataError(f"No image in {index.name} can be read.")
    return index.used.rows


def _calibration(images: Any) -> list[Row]:
    """Return up to CALIBRATION of the images, spread over all, that can be decoded."""
    import numpy as np

    rows = _rows(images)
    numbers = np.unique(np.linspace(0, len(rows) - 1, CALIBRATION).astype(int))
    return _readable([rows[number] for number in numbers])


def _readable(rows: Sequence[Row]) -> list[Row]:
    """Return the images that can be decoded, before anything is converted, which takes long; say which can't."""
    from regraft.data.decode import decode

    usable = []
    for row in rows:
        with _left_out(row):
            decode(row.location.read())
            usable.append(row)
    if rows and not usable:
        raise DataError(f"None of {count(len(rows), 'image')}, such as {rows[0].path}, can be read.")
    return usable


@contextlib.contextmanager
def _converting(format: str) -> Iterator[None]:
    """Turn a converter's failure into UsageError: each library has its own ways to fail."""
    try:
        yield
    except (RegraftError, OSError):
        raise
    except Exception as error:
        raise UsageError(
            f"This network can't be converted to {format} ({type(error).__name__}: {first_line(error)}). Nothing was "
            "written. Choose another --to, or train on another --backbone."
        ) from error


def _versions(plugin: Any) -> dict[str, str]:
    from regraft.core.version import __version__

    packages = {name: metadata.version(name) for name in ("torch", *plugin.VERSIONS)}
    return {"regraft": __version__, "python": platform.python_version(), **packages}


def _check_held(certificate: Certificate) -> None:
    if not certificate.failures:
        return
    advice = "Please report this." if certificate.precision == "float32" else "Choose a finer --precision."
    raise RefusedFile(
        f"Nothing was written: {certificate.format} in {certificate.precision} does not give what the model gives. "
        + "; ".join(certificate.failures)
        + f"\n{advice}"
    )


@dataclass(frozen=True)
class _Answers:
    """The model's answers and the export's, of an image at a time."""

    model: Model
    reference: Run
    run: Run
    precision: str

    def of_rows(self, rows: Sequence[Row]) -> Group:
        """Return the comparison on images of the user's."""
        compared, labels = [], _labels(self.model, rows)
        with progress("Comparing images", len(rows)) as advance:
            for row in rows:
                compared.append(self._of(row.path, row.location.read(), labels.get(row.id)))
                advance(1)
        return Group(images=tuple(compared))

    def of_made(self) -> Group:
        """Return the comparison on made images."""
        from regraft.exports.made_images import made_images

        return Group(images=tuple(self._of(name, data) for name, data in made_images()))

    def _of(self, path: str, data: bytes, true: str | None = None) -> Compared:
        from regraft.data.decode import decoded

        with decoded(data) as pixels:
            expected, probabilities = self.reference(pixels), self.run(pixels)
        difference = GATES[self.precision].difference
        return compare(self.model, expected, probabilities, path=path, difference=difference, true=true)


def _labels(model: Model, rows: Sequence[Row]) -> dict[str, str]:
    """Return the labels by id of the images that were not trained on: the model's own, or their folders' names.

    An image with more than one of these is in conflict, and is not among them.
    """
    from regraft.pipeline.known import Known

    new = {row.id for row in rows if not Known(model).trained_on([row])}
    labels: dict[str, set[str]] = {identifier: set() for identifier in new}
    for row in rows:
        folder = Path(row.path).parent.name
        if row.id in new and row.id in model.images:
            labels[row.id].add(model.images[row.id][0])
        if row.id in new and folder in model.classes and not model.loss.multilabel:
            labels[row.id].add(folder)
    return {identifier: next(iter(each)) for identifier, each in labels.items() if len(each) == 1}


@contextlib.contextmanager
def _left_out(row: Row) -> Iterator[None]:
    """Name an image that can't be read, and go on without it."""
    from regraft.data.decode import BrokenImage

    try:
        yield
    except (BrokenImage, OSError) as error:
        log.warning("Left out, broken: %s: %s", row.path, error)
