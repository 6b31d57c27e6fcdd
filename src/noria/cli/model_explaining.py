"""`noria model explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.models.explaining import Attributions

__all__ = ["explain"]

_SHOWN = 8


def explain(
    reference: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    rows: Annotated[Path | None, Parameter(name="--rows")] = None,
    limit: int = 3,
    options: Options = DEFAULT,
) -> None:
    """Tell what each input adds to the score of rows.

    Parameters
    ----------
    reference
        NAME, NAME:3, or NAME@production.
    rows
        A file of rows, with columns as the model reads them: Parquet, CSV, or JSON lines. Default: some of
        those that are stored with the version.
    limit
        At most so many rows.
    """
    from noria.cli import screen
    from noria.errors import ConfigError

    if limit < 1:
        raise ConfigError(f"--limit is {limit}; give 1 or more")
    with options.open() as project:
        table = None if rows is None else _read(rows).slice(0, limit)
        found = project.models.explain(reference, table)
    if options.json:
        told = found.table().slice(0, limit).to_pylist()
        screen.json({"model": found.version, "unit": found.unit, "method": found.method, "rows": told})
        return
    _show(found, limit)


def _show(found: "Attributions", limit: int) -> None:
    from noria.cli import screen
    from noria.workspace.models.explained import METHODS, UNITS

    screen.line(
        f"What inputs add to scores of {found.version}: {METHODS[found.method]}. Base and inputs add up to "
        f"{UNITS[found.unit]}."
    )
    values = found.rows.to_pylist()
    for number in range(min(limit, len(found.scores))):
        screen.heading(f"Row {number + 1}: score {found.scores[number]:.4f}")
        order = sorted(range(len(found.names)), key=lambda place: -abs(found.values[number, place]))
        shown = [
            (found.names[place], values[number][found.names[place]], f"{found.values[number, place]:+.4f}")
            for place in order[:_SHOWN]
        ]
        left = sum(found.values[number, place] for place in order[_SHOWN:])
        if len(order) > _SHOWN:
            shown.append((f"{len(order) - _SHOWN} other inputs", "", f"{left:+.4f}"))
        shown += [
            ("base", "", f"{found.base[number]:+.4f}"),
            ("together", "", f"{found.totals[number]:+.4f}"),
        ]
        screen.table(["input", "value", "adds"], shown, right=["value", "adds"])


def _read(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    from noria.errors import ConfigError

    readers = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".json": pyarrow.json.read_json,
        ".jsonl": pyarrow.json.read_json,
    }
    if path.suffix.lower() not in readers:
        raise ConfigError(f"{path} is no file of rows that can be told by its name: {', '.join(readers)}")
    try:
        return readers[path.suffix.lower()](path)
    except (OSError, pa.ArrowException) as err:
        raise ConfigError(f"{path} cannot be read: {str(err).splitlines()[0]}") from err
