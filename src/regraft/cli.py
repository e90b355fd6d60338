"""The command line's face of the pipeline: words in, an exit code out.

Flags come from the option dataclasses. Results go to stdout, everything else
to stderr. Heavy libraries are imported by the command that needs them.
"""

from __future__ import annotations

import atexit
import gc
import io
import json as jsonlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from regraft.core.errors import DataError, RegraftError, UsageError
from regraft.core.progress import log
from regraft.core.version import __version__
from regraft.network.options import EngineOptions, FeatureOptions, StoreOptions
from regraft.pipeline.audit import DeepOptions
from regraft.pipeline.compare import CompareOptions
from regraft.pipeline.options import ExtractOptions, TrainOptions
from regraft.pipeline.serve_options import EvaluateOptions, PredictOptions
from regraft.pipeline.tune import TuneOptions

FLAT = Parameter(name="*")
Source = Annotated[str, Parameter(help="A folder of class folders, a .zip or .tar[.gz] of one, or a CSV.")]
ModelFolder = Annotated[Path, Parameter(help="A folder written by `regraft train`.")]
Json = Annotated[bool, Parameter(help="JSON to stdout, for machines.")]


def _show_default(value: Any) -> str:
    return "none" if value is None else ("on" if value else "off") if isinstance(value, bool) else str(value)


class _Help:
    """Help in aligned columns, without boxes; rich is imported only when help is asked for."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        from cyclopts.help import DefaultFormatter, PanelSpec
        from rich.box import Box

        plain = PanelSpec(box=Box("    \n" * 8), padding=(0, 0), title_align="left", border_style="none")
        DefaultFormatter(panel_spec=plain)(console, options, panel)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:  # noqa: ARG002
        console.print(f"Usage: {usage}", markup=False, highlight=False)


app = App(
    name="regraft",
    help="A folder of photographs becomes a tested image classifier, by transfer learning.",
    version=__version__,
    help_format="plaintext",
    version_format="plaintext",
    help_formatter=_Help(),
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        negative_bool=(), negative_iterable=(), show_default=_show_default, consume_multiple=(1, None)
    ),
)
app.meta.group_parameters = Group("Everywhere", sort_key=99)
app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def _everywhere(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(alias="-q", help="Say only what is wrong.")] = False,
    verbose: Annotated[bool, Parameter(alias="-v", help="Say more; show tracebacks.")] = False,
) -> Any:
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    return app(tokens, result_action="return_value")


@app.command
def inspect(
    source: Source,
    /,
    *,
    options: Annotated[DeepOptions, FLAT] = DeepOptions(),  # noqa: B008
    deep: Annotated[bool, Parameter(help="Look for near-copies, doubtful labels and outliers, by features.")] = False,
    output: Annotated[Path | None, Parameter(alias="-o", help="With --deep: write a CSV to act on.")] = None,
    report: Annotated[Path | None, Parameter(help="With --deep: write an HTML page with the pictures.")] = None,
    json: Json = False,
) -> None:
    """Look at every image: counts, classes, sizes, formats, broken files, copies, conflicts."""
    from regraft.data import inspect as inspection
    from regraft.data import read as reading

    if deep:
        _inspect_deep(source, options, output, report, json)
        return
    if output or report:
        raise UsageError(f"{'--output' if output else '--report'} is for what --deep finds; add --deep.")
    found = inspection.inspect(reading.read(source, options=options))
    _result(found.to_dict(), json, inspection.text(found))


def _inspect_deep(source: str, options: DeepOptions, output: Path | None, report: Path | None, json: bool) -> None:
    from regraft.pipeline import audit as deep
    from regraft.report.audit_page import render

    _require_ending(output, ".csv")
    _require_ending(report, ".html")
    found = deep.inspect(source, options)
    if output:
        found.write_csv(output)
        log.info("What to act on is in %s.", output)
    if report:
        _write_page(report, render(found))
    _result(found.to_dict(), json, found.text())


@app.command
def train(
    source: Source,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o", help="Folder for the model.")],
    options: Annotated[TrainOptions, FLAT] = TrainOptions(),  # noqa: B008
    json: Json = False,
) -> None:
    """Split, extract features, train, evaluate on the held-out part, and save the model."""
    from regraft.pipeline import train as training

    report = training.train(source, output, options)
    _result(report.to_dict(), json, report.text())
    log.info("The model is in %s. Next: regraft predict %s NEW.jpg", output, output)


@app.command
def evaluate(
    model: ModelFolder,
    source: Source,
    /,
    *,
    options: Annotated[EvaluateOptions, FLAT] = EvaluateOptions(),  # noqa: B008
    engine: Annotated[EngineOptions, FLAT] = EngineOptions(),  # noqa: B008
    json: Json = False,
    report: Annotated[Path | None, Parameter(help="Write an HTML report to this file.")] = None,
) -> None:
    """Measure a model on labelled images: accuracy with its interval, per class, confusion."""
    from regraft.pipeline import public as pipeline

    _require_ending(report, ".html")
    found = pipeline.evaluate(pipeline.load(model, **vars(engine)), source, **vars(options))
    if report:
        _write_page(report, found.html())
    _result(found.to_dict(), json, found.text())


@app.command
def compare(
    source: Source,
    /,
    *,
    options: Annotated[CompareOptions, FLAT] = CompareOptions(),  # noqa: B008
    json: Json = False,
    report: Annotated[Path | None, Parameter(help="Write the table and the curve to this HTML file.")] = None,
) -> None:
    """Say which backbone and cut to take, and whether more photographs would help, by cross-validation."""
    from regraft.pipeline import public as pipeline

    _require_ending(report, ".html")
    found = pipeline.compare(source, **vars(options))
    if report:
        from regraft.report.comparison_page import render

        _write_page(report, render(found))
    _result(found.to_dict(), json, found.text())


@app.command
def tune(
    source: Source,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o", help="Folder for the model.")],
    options: Annotated[TuneOptions, FLAT] = TuneOptions(),  # noqa: B008
    json: Json = False,
) -> None:
    """Search for head, rate, regularisation, views and cut on stored features, and train what was found."""
    from regraft.pipeline import public as pipeline

    found = pipeline.tune(source, output, **vars(options))
    _result(found.to_dict(), json, found.text())
    log.info("The model is in %s. Next: regraft predict %s NEW.jpg", output, output)


@app.command
def lr_find(
    source: Source,
    /,
    *,
    options: Annotated[TrainOptions, FLAT] = TrainOptions(),  # noqa: B008
    output: Annotated[
        Path | None, Parameter(alias="-o", help="Write the picture of the sweep to this SVG file.")
    ] = None,
    json: Json = False,
) -> None:
    """Sweep the learning rate of a head or a tail upwards, and suggest one to begin with."""
    from regraft.pipeline import lr_find as rates

    _require_ending(output, ".svg")
    found = rates.sweep(source, options)
    if output:
        _write_page(output, found.svg())
    _result(found.to_dict(), json, found.text())


@app.command(usage="regraft predict [OPTIONS] MODEL INPUT...")
def predict(
    model: ModelFolder,
    inputs: Annotated[tuple[Path, ...], Parameter(help="Files, folders, archives.", required=True)],
    /,
    *,
    options: Annotated[PredictOptions, FLAT] = PredictOptions(),  # noqa: B008
    engine: Annotated[EngineOptions, FLAT] = EngineOptions(),  # noqa: B008
    output: Annotated[Path | None, Parameter(alias="-o", help="Write a CSV with a row for every input.")] = None,
    json: Json = False,
) -> None:
    """Name what is on photographs, with percentages."""
    from regraft.model import predict as serving
    from regraft.pipeline import public as pipeline

    _require_ending(output, ".csv")
    predictions = pipeline.predict(pipeline.load(model, **vars(engine)), inputs, **vars(options))
    if output:
        serving.write_csv(predictions, output)
        log.info("%d rows are in %s.", len(predictions), output)
    if json or not output:
        _result([item.to_dict() for item in predictions], json, "\n".join(map(str, predictions)))
    if not any(item.status == "ok" for item in predictions):
        raise DataError("None of the inputs is a picture that can be read; each has its reason above.")


@app.command
def extract(
    source: Source,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o", help="The .npz or .parquet file to write.")],
    options: Annotated[ExtractOptions, FLAT] = ExtractOptions(),  # noqa: B008
) -> None:
    """Write the frozen part's features of every image to a file, with ids, paths, labels and parts."""
    from regraft.features import write
    from regraft.pipeline import train as training

    write.check(output)
    features = training.read_and_extract(source, options)
    write.write(features, output)
    log.info("The features of %d images, each %s, are in %s.", len(features), features.shape[1:], output)


@app.command
def backbones(
    pattern: Annotated[str | None, Parameter(help="A name, or part of one with * and ?.")] = None,
    /,
    *,
    cuts: Annotated[bool, Parameter(help="List where the network of this name can be cut.")] = False,
    json: Json = False,
) -> None:
    """List networks: parameters, input, licence, features, whether the weights are on this disk."""
    from regraft.network import catalog, cut, listing

    if cuts:
        cuts_by_path = cut.named_cuts(catalog.find(pattern or FeatureOptions.backbone))
        _result(cuts_by_path, json, cut.text(cuts_by_path))
    else:
        rows = listing.rows(pattern)
        _result(rows, json, listing.text(rows))


@app.command
def store(
    action: Annotated[Literal["info", "clear"], Parameter(help="What to do.")] = "info",
    /,
    *,
    options: Annotated[StoreOptions, FLAT] = StoreOptions(),  # noqa: B008
    json: Json = False,
) -> None:
    """Show what the feature store holds, or clear it."""
    from regraft.features.store import Store

    opened = Store(options.store)
    if action == "clear":
        freed = opened.clear()
        _result({"freed": freed}, json, f"{freed / 1e6:,.1f} MB freed in {opened.folder}.")
    else:
        _result(opened.to_dict(), json, opened.text())


@app.command
def report(
    model: ModelFolder, /, *, output: Annotated[Path, Parameter(alias="-o", help="The HTML file to write.")]
) -> None:
    """Write what the model folder tells of itself as one HTML file (`evaluate --report` adds the photographs)."""
    from regraft.pipeline import public as pipeline
    from regraft.pipeline.report import model_page

    _require_ending(output, ".html")
    _write_page(output, model_page(pipeline.load(model)))


@app.command
def demo(
    *,
    output: Annotated[Path, Parameter(alias="-o", help="Folder for what the demo makes.")] = Path("regraft-demo"),
    options: Annotated[StoreOptions, FLAT] = StoreOptions(),  # noqa: B008
) -> None:
    """Train, evaluate and use a classifier of handwritten digits, offline, in a minute or two."""
    from regraft import demo as demonstration

    demonstration.run(output, options.store)


def _require_ending(path: Path | None, ending: str) -> None:
    """Refuse to write over what is likely something else, such as a photograph."""
    if path is not None and path.suffix.lower() != ending:
        raise UsageError(f"The file to write is {path}; expected a name that ends in {ending}.")


def _write_page(path: Path, text: str) -> None:
    from regraft.core import files

    files.write_file(path, text.encode())
    log.info("It is written to %s.", path)


def _result(data: Any, json: bool, text: str) -> None:
    print(jsonlib.dumps(data, indent=2, ensure_ascii=False) if json else text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see core/errors.py)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a class name that the terminal can't show is still printed
            stream.reconfigure(errors="backslashreplace")
    atexit.register(gc.freeze)  # else Python, leaving, looks through all that was imported: half a second
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    try:
        app.meta(argv, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _say(" ".join(str(error).split()), UsageError.exit_code)
    except RegraftError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("Interrupted; what is stored is kept. The same command goes on from there.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        return _say(f"This should not happen: {type(error).__name__}: {error}. Please report it with what -v shows.", 1)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    return 0


def _say(message: str, code: int) -> int:
    if log.isEnabledFor(logging.DEBUG):
        traceback.print_exc()
    print(f"regraft: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
