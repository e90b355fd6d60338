"""The command line: words in, an exit code out.

Flags come from the option dataclasses. Results go to stdout, everything else
to stderr. Heavy libraries are imported by the command that needs them.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter

from regraft.cli import hints
from regraft.cli import predicting as predicting  # its verbs
from regraft.cli import running as running
from regraft.cli.app import app, typed_command
from regraft.cli.arguments import Json, ModelFolder, Output, Overwrite, Show, Source
from regraft.cli.arguments import file as _file
from regraft.cli.flags import command
from regraft.cli.output import print_result as _print
from regraft.cli.output import show as _show
from regraft.cli.output import write_page as _write_page
from regraft.core import files, outputs
from regraft.core.errors import RegraftError, UsageError
from regraft.core.progress import Printable, log
from regraft.core.text import count, on_one_screen, printable_lines
from regraft.exports.options import ExportOptions
from regraft.features.options import StoreOptions
from regraft.inference.options import EngineOptions
from regraft.network.options import NetworkOptions
from regraft.pipeline.options import (
    AuditOptions,
    CompareOptions,
    EvaluateOptions,
    ExtractOptions,
    TableOptions,
    TrainOptions,
    TuneOptions,
)


@command(app, AuditOptions, TableOptions)
def inspect(
    source: Source,
    /,
    *,
    deep: Annotated[
        bool, _file("Also look for near-duplicates, likely label errors and outliers, by features.")
    ] = False,
    output: Annotated[Path | None, Parameter(alias="-o"), _file("With --deep: write a CSV of what to do.")] = None,
    report: Annotated[Path | None, _file("Write an HTML page; with --deep it shows the pictures.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    options: Any = None,
) -> None:
    """Look at every image: counts, classes, sizes, formats, broken files, copies, conflicts."""
    from regraft.pipeline.inspect import inspect

    if output and not deep:
        raise UsageError("--output is for what --deep finds; add --deep.")
    outputs.check(output, [".csv"], overwrite=overwrite)
    outputs.check(report, [".html"], overwrite=overwrite)
    audit, table = options
    result: Any = inspect(source, deep=deep, options=audit)
    if output:
        files.write_file(output, result.csv(formulas=table.formulas).encode())
        log.info("What to do about each file is in %s.", output)
    _show(result, json, report)


@command(app, TrainOptions)
def train(
    source: Source = "", /, *, output: Output | None = None, show: Show = False, json: Json = False, options: Any = None
) -> None:
    """Split, extract features, train, evaluate on the held-out part, and save the model."""
    from regraft.pipeline import presets
    from regraft.pipeline.train import train
    from regraft.training import processes

    if show:
        print(presets.text(options.preset.preset))
    elif source and output:
        report = train(source, output, options=options)
        if processes.current().rank == 0:
            _show(report, json)
        _say_next(output)
    elif not source:
        raise UsageError("Say where the photographs are, and where the model goes: `regraft train PHOTOS -o MODEL`.")
    else:
        raise UsageError(
            f"Say where the model goes, a new folder: `{shlex.join(['regraft', 'train', source, '-o'])} MODEL`."
        )


def _say_next(model: Path) -> None:
    folder = shlex.quote(str(model))
    log.info("The model is in %s. As a page: regraft report %s -o report.html", model, folder)
    log.info("Next: regraft predict %s NEW.jpg", folder)


@command(app, EvaluateOptions, EngineOptions)
def evaluate(
    model: ModelFolder,
    source: Source,
    /,
    *,
    strangers: Annotated[
        Path | None, _file("Images of none of the classes: how many of them are called unknown?")
    ] = None,
    report: Annotated[Path | None, _file("Write an HTML report to this file.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    options: Any = None,
) -> None:
    """Evaluate a model on labelled images: accuracy with its interval, per class, confusion."""
    from regraft.pipeline.evaluate import evaluate
    from regraft.pipeline.predict import load

    outputs.check(report, [".html"], overwrite=overwrite)
    evaluation, engine = options
    _show(evaluate(load(model, options=engine), source, strangers=strangers, options=evaluation), json, report)


@command(app, CompareOptions)
def compare(
    source: Source,
    /,
    *,
    report: Annotated[Path | None, _file("Write the table and the curve to this HTML file.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    options: Any = None,
) -> None:
    """Say which backbone and cut to take, and whether more photographs would help, by cross-validation."""
    from regraft.pipeline.compare import compare

    outputs.check(report, [".html"], overwrite=overwrite)
    _show(compare(source, options=options), json, report)


@command(app, TuneOptions)
def tune(source: Source, /, *, output: Output, json: Json = False, options: Any = None) -> None:
    """Search for head, rate, regularisation, views and cut on stored features, and train the best."""
    from regraft.pipeline.tune import tune

    _show(tune(source, output, options=options), json)
    _say_next(output)


@command(app, TrainOptions)
def lr_find(
    source: Source,
    /,
    *,
    output: Annotated[
        Path | None, Parameter(alias="-o"), _file("Write the plot to this .svg, or a page to this .html file.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    options: Any = None,
) -> None:
    """Sweep the learning rate of a head or a tail upwards, and suggest one to begin with."""
    from regraft.pipeline.lr_find import lr_find

    outputs.check(output, [".svg", ".html"], overwrite=overwrite)
    sweep = lr_find(source, options=options)
    if output:
        _write_page(output, sweep.svg() if output.suffix.lower() == ".svg" else sweep.html(typed_command.get()))
    _show(sweep, json)


@command(app, ExtractOptions)
def extract(
    source: Source,
    /,
    *,
    output: Annotated[
        str, Parameter(alias="-o"), _file("The .npz or .parquet file to write; or a folder or URL, for many images.")
    ],
    overwrite: Overwrite = False,
    json: Json = False,
    options: Any = None,
) -> None:
    """Write the frozen part's features of every image to a file, with ids, paths, labels and parts."""
    from regraft.features import write
    from regraft.pipeline.extract import read_and_extract, read_and_write
    from regraft.pipeline.units import is_folder

    if is_folder(output):
        _show(read_and_write(source, output, options), json)
        return
    write.check(Path(output), overwrite=overwrite)
    features = read_and_extract(source, options)
    write.write(features, Path(output), overwrite=overwrite)
    log.info("The features of %s, each %s, are in %s.", count(len(features), "image"), features.shape[1:], output)


@command(app, ExportOptions)
def export(
    model: ModelFolder,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o"), _file("Folder for the export.")],
    check: Annotated[Path | None, _file("Images on which the export must give what the model gives.")] = None,
    calibrate: Annotated[Path | None, _file("Images that int8 takes its ranges from.")] = None,
    json: Json = False,
    options: Any = None,
) -> None:
    """Write a model for another runtime: a browser, a phone, any ONNX runtime; with a certificate, or not at all."""
    from regraft.pipeline.export import export
    from regraft.pipeline.predict import load

    _show(export(load(model), output, check=check, calibrate=calibrate, options=options), json)
    log.info("The export is in %s; its README.md tells how to use it.", output)


@app.command
def backbones(
    pattern: Annotated[str | None, Parameter(help="A name, or part of one with * and ?.")] = None,
    /,
    *,
    cuts: Annotated[bool, _file("List where the network of this name can be cut.")] = False,
    json: Json = False,
) -> None:
    """List networks: parameters, input, licence, features, whether the weights are on this disk."""
    from regraft.network import catalog, listing

    if cuts:
        from regraft.network import cut

        rows = cut.named_cuts(catalog.find(pattern or NetworkOptions().backbone))
        _print(rows, json, cut.text(rows))
    else:
        networks = listing.rows(pattern)
        _print(networks, json, listing.text(networks))


@command(app, StoreOptions)
def store(
    action: Annotated[Literal["info", "clear"], Parameter(help="What to do.")] = "info",
    /,
    *,
    json: Json = False,
    options: Any = None,
) -> None:
    """Show what the feature store holds, or clear it."""
    from regraft.features.store.store import Store

    opened = Store(options.store)
    if action == "clear":
        freed = opened.clear()
        _print({"freed": freed}, json, f"{freed / 1e6:,.1f} MB freed in {opened.folder}.")
    else:
        _print(opened.to_dict(), json, opened.text())


@app.command
def report(
    model: ModelFolder,
    /,
    *models: Annotated[Path, Parameter(help="Further ones, to be compared with the first.")],
    output: Annotated[Path, Parameter(alias="-o"), _file("The HTML file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write what model folders record of themselves as one HTML file (`evaluate --report` adds the photographs)."""
    from regraft.pipeline.models_page import models_page
    from regraft.pipeline.predict import load
    from regraft.pipeline.report import model_page

    outputs.check(output, [".html"], overwrite=overwrite)
    if models:
        each = {str(folder): load(folder) for folder in (model, *models)}
        page = models_page(each, typed_command.get())
    else:
        page = model_page(load(model), typed_command.get())
    _write_page(output, page)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see core/errors.py)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a class name that the terminal can't show is still printed
            stream.reconfigure(errors="backslashreplace")
    atexit.register(gc.freeze)  # else Python, leaving, looks through all that was imported: half a second
    words = sys.argv[1:] if argv is None else argv
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable())
    log.addHandler(handler)
    try:
        app.meta(argv, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _say(hints.message(error, words), UsageError.exit_code)
    except RegraftError as error:
        return _say(hints.message(error, words), error.exit_code)
    except KeyboardInterrupt:
        return _interrupted(leaves=argv is None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        return _say(f"This should not happen: {type(error).__name__}: {error}. Please report it with what -v shows.", 1)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    return 0


def _interrupted(leaves: bool) -> int:
    """Say how to go on; leave at once, without waiting for threads, if this is the program and not a call of `main`."""
    code = _say("Interrupted; what is stored is kept. The same command goes on from there.", 130)
    if leaves:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


def _say(message: str, code: int) -> int:
    if log.isEnabledFor(logging.DEBUG):
        traceback.print_exc()
    print(f"regraft: {printable_lines(on_one_screen(message))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
