"""The verbs that look at photographs without labels: `predict` and `suggest`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from regraft.cli.app import app, typed_command
from regraft.cli.arguments import Json, ModelFolder, Overwrite, file
from regraft.cli.flags import command
from regraft.cli.output import print_result, show, write_page
from regraft.core import files, outputs
from regraft.core.errors import DataError, UsageError
from regraft.core.progress import log
from regraft.core.text import count, listed, printable
from regraft.inference.options import EngineOptions
from regraft.pipeline.options import PredictOptions, PredictUnitsOptions, SortOptions, SuggestOptions, TableOptions

if TYPE_CHECKING:
    from regraft.model.predict import Prediction


@command(
    app,
    PredictOptions,
    EngineOptions,
    PredictUnitsOptions,
    TableOptions,
    SortOptions,
    usage="regraft predict [OPTIONS] MODEL INPUT...",
)
def predict(
    model: ModelFolder,
    inputs: Annotated[tuple[str, ...], Parameter(help="Files, folders, archives, CSVs.", required=True)],
    /,
    *,
    output: Annotated[
        str | None,
        Parameter(alias="-o"),
        file("Write a CSV with a row for every input; or a folder or URL, for many images."),
    ] = None,
    explain: Annotated[
        bool, file("Name the training images most like each; with --report also show what the answer rests on.")
    ] = False,
    report: Annotated[Path | None, file("Write an HTML page with the photographs and their answers.")] = None,
    sort_into: Annotated[
        Path | None, file("Copy each photograph into a folder of its label in this folder; see --unsure.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    options: Any = None,
) -> None:
    """Name what is on photographs, with percentages."""
    from regraft.model import predict as predicting
    from regraft.model.sorting import check_target
    from regraft.pipeline.explain import gallery
    from regraft.pipeline.predict import load
    from regraft.pipeline.units import is_folder, predict_units

    prediction, engine, units, written, sorting = options
    if output and is_folder(output):
        if explain or report or sort_into or prediction.tta.tta > 1:
            raise UsageError(
                "--explain, --report, --sort-into and --tta are for predictions that are printed or written to a CSV."
            )
        show(predict_units(model, _only(inputs), output, engine, units), json)
        return
    table = Path(output) if output else None
    outputs.check(table, [".csv"], overwrite=True)  # predictions replace predictions
    outputs.check(report, [".html"], overwrite=overwrite)
    if sort_into:
        check_target(sort_into, inputs)
    made = gallery(load(model, options=engine), inputs, prediction, explained=explain)
    if table:
        files.write_file(table, predicting.csv_of(made.predictions, formulas=written.formulas).encode())
        log.info("%s written to %s.", count(made, "row"), table)
    if report:
        write_page(report, made.html(typed_command.get()))
    if sort_into:
        made.sort_into(sort_into, unsure=sorting.unsure)
    if json or not (table or report or sort_into):
        print_result(made.to_dict()["predictions"], json, made.text())
    _check_answered(made.predictions, inputs)


def _check_answered(predictions: Sequence[Prediction], inputs: tuple[str, ...]) -> None:
    """Raise DataError if nothing has an answer, or a file that was named has none."""
    if not any(item.status == "ok" for item in predictions):
        raise DataError("None of the inputs is a picture that can be read; each has its reason above.")
    named = {printable(Path(word).as_posix()) for word in inputs}
    if failed := [item.path for item in predictions if item.status != "ok" and item.path in named]:
        raise DataError(f"No answer for {listed(failed)}: missing, broken or no picture. All others have theirs.")


@command(app, SuggestOptions, EngineOptions, TableOptions, usage="regraft suggest [OPTIONS] MODEL PHOTOS...")
def suggest(
    model: ModelFolder,
    photographs: Annotated[tuple[str, ...], Parameter(help="Files, folders, archives, CSVs.", required=True)],
    /,
    *,
    count: Annotated[int, Parameter(alias="-n"), file("How many to label.")] = 50,
    output: Annotated[
        Path | None, Parameter(alias="-o"), file("Write a CSV with an empty column for the labels.")
    ] = None,
    report: Annotated[Path | None, file("Write an HTML page with the photographs.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    options: Any = None,
) -> None:
    """Say which photographs to label next: those that a model is unsure of, and unlike each other."""
    from regraft.pipeline.predict import load
    from regraft.pipeline.suggest import suggest

    chosen, engine, written = options
    outputs.check(output, [".csv"], overwrite=overwrite)
    outputs.check(report, [".html"], overwrite=overwrite)
    made = suggest(load(model, options=engine), photographs, count, options=chosen)
    if output:
        files.write_file(output, made.csv(formulas=written.formulas).encode())
        log.info("Fill in the column `label` of %s; `regraft train %s` learns from it.", output, output)
    show(made, json, report)


def _only(inputs: tuple[str, ...]) -> str:
    if len(inputs) > 1:
        raise UsageError(f"There are {len(inputs)} inputs, and --output is a folder; expected one input.")
    return inputs[0]
