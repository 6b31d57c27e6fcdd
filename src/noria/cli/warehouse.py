"""`noria query`."""

from typing import Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["query"]


def query(
    sql: Annotated[str, Parameter(name="SQL")], /, *, rows: int = 100, options: Options = DEFAULT
) -> None:
    """Answer one SELECT over every table: datasets, features, predictions, outcomes, the ledger's own.

    `noria query "show tables"` lists them.

    Parameters
    ----------
    sql
        DuckDB's dialect.
    rows
        Show at most so many; with --json all are given.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.query(sql)
    if options.json:
        screen.json(found.to_pylist())
        return
    shown = found.slice(0, max(rows, 0)).to_pylist()
    numbers = [each.name for each in found.schema if _is_number(str(each.type))]
    screen.table(found.column_names, [list(row.values()) for row in shown], right=numbers)
    left = found.num_rows - len(shown)
    told = "1 row" if found.num_rows == 1 else f"{found.num_rows:,} rows"
    screen.line(f"{told}; the last {left:,} are not shown (--rows N shows more)" if left else told)


def _is_number(kind: str) -> bool:
    return kind.startswith(("int", "uint", "float", "double", "decimal"))
