"""The project's verb that scores batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from noria.lake.reading import Reading
    from noria.workspace.predicting.records import BatchProgress, Predicted
    from noria.workspace.project import Project

__all__ = ["PredictVerbs"]


class PredictVerbs(Opened):
    """Batches of predictions."""

    def predict(
        self,
        model: str | Path,
        input: Any,
        *,
        output: str | Path,
        id: str | None = None,
        keep: str | Sequence[str] = (),
        at: str | None = None,
        log: bool = False,
        sql: bool = False,
        format: Literal["parquet", "csv", "jsonl"] | None = None,
        input_format: str | None = None,
        reading: Reading | None = None,
        max_rejected: float = 0.0,
        replace: bool = False,
        executor: str | None = None,
        workers: int = 0,
        cause: str | None = None,
        tell: Callable[[BatchProgress], None] | None = None,
    ) -> Predicted:
        """Score all rows of an input by the path that a server answers by, and write what the model gives.

        Memory does not grow with the input. It is done in parts, on several cores: killed at any instant,
        the same call goes on with what is left, and no row is doubled; the output is there whole, or not at
        all (a table of the lake grows part by part, each once). The run, what it read and what it made are on
        record.

        Parameters
        ----------
        model
            `NAME` (its newest version), `NAME:3`, `NAME@ENVIRONMENT` (what is deployed there),
            `release:NAME:2`; or a `Path` of a model file of LightGBM, XGBoost, ONNX or skops, which is
            registered by its name.
        input
            A file (Parquet, CSV, JSON lines, Arrow, Excel), a folder, a pattern or several of them; the name
            of a table or a dataset, with `:3` one of its versions; a frame or a stream of one; with `sql` a
            SELECT.
        output
            A file that ends with .parquet, .csv or .jsonl; a folder, which gets a file for each part and
            `_manifest.json`; `table:NAME`, to which rows are appended.
        id
            The column that names predictions. Default: a digest of input and release, and the row's number.
        keep
            Columns of the input that go along; `"*"`: all.
        at
            A column of instants: features are what was known then. Default: what the online store holds now.
        log
            Put predictions into the table `predictions` as a server does: under the environment of
            `NAME@ENVIRONMENT`, else `batch`. A row whose id the release has answered there is not logged
            again.
        format
            Of the files of a folder; default parquet.
        input_format, reading
            Of files whose name does not tell, and how texts are read; as `project.ingest` has them.
        max_rejected
            The share of rows that may be left out because a value is of the wrong type or the model fails for
            it; they are written to `OUTPUT.rejected.jsonl` with the reason.
        replace
            Let it take the place of an output that is there.
        executor, workers
            `inline`, `processes`, `ray`, ...; default: `[compute]`. Machines of a cluster have to see the
            folders of input, output and project.
        cause
            The event that started it.
        tell
            Called with how far it is.

        Returns
        -------
        Predicted
            Rows scored, rejected, logged, and how long it took.

        Raises
        ------
        NotFound
            If there is no such model, table or version.
        SourceError
            If a column is missing or of the wrong type, before anything is done; if the input cannot be read,
            or more rows cannot be scored than may be.
        Conflict
            If the output is there already, or another process makes it right now.
        RouteRefusedError
            If the model does not reproduce its stored rows.

        Examples
        --------
        ::

            project.predict("late@production", "july/*.parquet", output="scores/", id="order_id", log=True)
        """
        from noria.workspace.predicting.inputs import open_input
        from noria.workspace.predicting.models import find_model
        from noria.workspace.predicting.outputs import open_output
        from noria.workspace.predicting.predicting import Batch
        from noria.workspace.predicting.records import Asked

        project = cast("Project", self)
        made = open_output(output, format=format)
        rows = open_input(project, input, sql=sql, format=input_format, reading=reading)
        return Batch(
            project=project,
            model=find_model(project, model, rows.example, log=log),
            input=rows,
            output=made,
            asked=Asked(
                id=id,
                keep=(keep,) if isinstance(keep, str) else tuple(keep),
                at=at,
                log=log,
                max_rejected=max_rejected,
                replace=replace,
            ),
            executor=executor,
            workers=workers,
            cause=cause,
            tell=tell,
        ).run()
