"""noria in a notebook: `%load_ext noria.notebook`.

Gives `project`, the magic `%%noria` for SQL, and a look at answers, runs and dashboards. `noria notebook`
opens JupyterLab with all of it.
"""

import shlex
from argparse import ArgumentParser
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, NoReturn

from noria.errors import ConfigError, ProjectNotFound
from noria.workspace.project import Project
from noria.workspace.project import open as open_project

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.records import Run
    from noria.workspace.dashboards import Built

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

_MAGIC = "noria"
_ROWS = 20
_SHOWN: Mapping[str, str] = {
    "pyarrow.lib.Table": "_show_table",
    "noria.records.Run": "_show_run",
    "noria.workspace.dashboards.Built": "_show_report",
}


def load_ipython_extension(shell: Any) -> None:
    """Give a shell of IPython the magic, the looks, and `project` where there is one and the name is free."""
    magics = _Magics(shell)
    for kind in ("cell", "line"):
        shell.register_magic_function(magics.query, magic_kind=kind, magic_name=_MAGIC)
    looks = shell.display_formatter.formatters["text/html"]
    for name, look in _SHOWN.items():
        module, _, kind = name.rpartition(".")
        looks.for_type_by_name(module, kind, globals()[look])
    if not isinstance(shell.user_ns.get("project"), Project):
        try:
            shell.push({"project": open_project()})
        except ProjectNotFound as missing:
            print(f"{missing}; `project = noria.open(DIR)` opens one")


def unload_ipython_extension(shell: Any) -> None:
    """Take magic and looks away again; `project` stays."""
    for kind in ("cell", "line"):
        shell.magics_manager.magics[kind].pop(_MAGIC, None)
    looks = shell.display_formatter.formatters["text/html"]
    for name in _SHOWN:
        looks.pop(name, None)


class _Magics:
    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def query(self, line: str, cell: str | None = None) -> "pa.Table | None":
        """Answer SQL over `project`: `%noria SELECT ...`, or a cell under `%%noria [NAME] [--timeout 60s]`.

        `$name` is the variable of that name. With NAME the answer, an Arrow table, is put into this variable.
        """
        from noria.warehouse.query_travel import named_parameters

        asked = _options(line if cell is not None else "")
        sql = line if cell is None else cell
        space = self._shell.user_ns
        project = space.get("project")
        if not isinstance(project, Project):
            raise ConfigError("there is no `project` here; `project = noria.open(DIR)` opens one")
        missing = sorted(name for name in named_parameters(sql) if name not in space)
        if missing:
            raise ConfigError(
                f"the query names ${missing[0]}, and there is no variable {missing[0]}; set it first"
            )
        params = {name: space[name] for name in named_parameters(sql)}
        table = project.query(sql, params or None, timeout=asked.timeout)
        if asked.name is None:
            return table
        self._shell.push({asked.name: table})
        return None


def _options(line: str) -> Any:
    parser = _Parser(prog=f"%%{_MAGIC}", add_help=False)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--timeout")
    found = parser.parse_args(shlex.split(line))
    if found.name is not None and not found.name.isidentifier():
        raise ConfigError(
            f"{found.name!r} is no name of a variable; the SQL begins on the line below %%{_MAGIC}"
        )
    return found


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Tell it as every other error is told, and leave the process alone."""
        raise ConfigError(f"%%{_MAGIC}: {message}; write %%{_MAGIC} [NAME] [--timeout 60s]")


def _show_table(table: "pa.Table") -> str:
    head = "".join(f"<th title='{escape(str(each.type))}'>{escape(each.name)}</th>" for each in table.schema)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_shown(value)}</td>" for value in row.values()) + "</tr>"
        for row in table.slice(0, _ROWS).to_pylist()
    )
    left = table.num_rows - min(table.num_rows, _ROWS)
    told = f"{table.num_rows:,} row{'' if table.num_rows == 1 else 's'}"
    told += f", the first {_ROWS} are shown" if left else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><p>{told}</p>"


def _shown(value: Any) -> str:
    if value is None:
        return "<span style='opacity:.5'>null</span>"
    return escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def _show_run(run: "Run") -> str:
    facts = {
        "run": run.id,
        "what": f"{run.kind} {run.name}",
        "state": run.state.value,
        "at": f"{run.at:%Y-%m-%d %H:%M} UTC",
        **{name: f"{value:.6g}" for name, value in sorted(run.metrics.items())},
    }
    if run.error:
        facts["error"] = run.error
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts.items())
    return f"<table>{rows}</table>"


def _show_report(built: "Built") -> str:
    """Show the page in a frame of its own, from which nothing reaches the notebook."""
    pages = [each for each in built.files if each.suffix == ".html"]
    failed = "".join(f"<p>panel {escape(name)}: {escape(why)}</p>" for name, why in built.failed.items())
    frames = "".join(
        f"<iframe sandbox='allow-scripts' width='100%' height='640' style='border:0' "
        f'srcdoc="{escape(each.read_text(encoding="utf-8"))}"></iframe>'
        for each in pages
    )
    return f"<p>report {escape(built.report.ref)}</p>{failed}{frames}"
