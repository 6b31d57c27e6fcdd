"""`noria light`: the file of a model as a service on this machine."""

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.workspace.light.folders import FOLDER

if TYPE_CHECKING:
    from noria.workspace.light.service import LightService

__all__ = ["light", "list_services", "show_log"]

_SHOWN_COLUMNS = 30


def light(
    model: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    name: str | None = None,
    example: Path | None = None,
    folder: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    watch: Annotated[bool, Parameter(negative="")] = False,
    trust_pickle: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULT,
) -> None:
    """Let a saved model answer over HTTP, until Ctrl-C; no project and no configuration is needed.

    What it was and what it answered stays in a folder: a changed file is the next version, every prediction
    is a row.

    Parameters
    ----------
    model
        A file of LightGBM (.txt), XGBoost (.json, .ubj), ONNX, scikit-learn (.skops; .joblib, .pkl with
        --trust-pickle), a folder of MLflow, or a version of the project here, as NAME:3.
    name
        What the model is called. Default: as the file.
    example
        A .csv, .parquet or .json file of rows that it reads: names, types, and by what it is verified.
    folder
        Where versions and log are kept. Default: .noria-light beside the model.
    host
        Where to listen. Default: this machine only.
    port
        Default: 8080, or a free one where that is taken; 0: a free one.
    workers
        Processes that answer; 0: one for each core.
    watch
        Look at the file, and answer by what it becomes; what is no good is told, and not taken.
    trust_pickle
        Load a pickle, which runs code of whoever wrote it.
    """
    from noria.workspace.light.starting import light as serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a service is as good as Ctrl-C
    with serve(
        model, name=name, example=example, folder=folder, host=host, port=port, workers=workers, watch=watch,
        trust_pickle=trust_pickle, project=options.project, tell=_tell,
    ) as service:  # fmt: skip
        _show(service, as_json=options.json)
        try:
            service.wait()
        except KeyboardInterrupt as stop:
            base = service.folder.parent
            where = "" if base == Path(FOLDER).absolute() else f" --folder {shlex.quote(str(base))}"
            raise KeyboardInterrupt(
                f"{service.name} stopped; `noria light log {service.name}{where}` shows what it answered"
            ) from stop


def _tell(message: str) -> None:
    from noria.cli import screen

    screen.line(message)
    screen.flush()


def _show(service: "LightService", *, as_json: bool) -> None:
    from noria.cli import screen

    row = service.example()
    told = {
        "address": service.address, "url": service.url, "model": service.version.ref,
        "columns": service.columns, "example": row, "docs": f"{service.address}/docs",
        "folder": str(service.folder), "log": str(service.log),
    }  # fmt: skip
    if as_json:
        screen.json(told)
        screen.flush()
        return
    import msgspec

    screen.line(f"{service.version.ref} answers at {service.address}.")
    screen.heading(f"It reads {screen.count(len(service.columns), 'column')}")
    shown = list(service.columns.items())[:_SHOWN_COLUMNS]
    screen.table(
        ["column", "takes", "such as"], [(each, kind, _value(row.get(each))) for each, kind in shown]
    )
    if len(service.columns) > len(shown):
        screen.line(f"and {len(service.columns) - len(shown)} more; {service.address}/docs shows them.")
    screen.heading("Try it, in another terminal")
    screen.verbatim(f"curl -s {service.url} -d {shlex.quote(msgspec.json.encode(row).decode())}")
    screen.heading("And")
    screen.facts({
        "page": f"{service.address}/docs",
        "metrics": f"{service.address}/metrics",
        "versions": f"{service.folder} (a project: `noria status --project` opens it)",
        "log": f"{service.log} (Parquet, once something was asked)",
    })  # fmt: skip
    screen.heading("Ctrl-C stops it.")
    screen.flush()


def _value(value: Any) -> str:
    return str(value) if not isinstance(value, list) else f"[{', '.join(map(str, value[:3]))}, ...]"


def list_services(*, folder: Path = Path(FOLDER), options: Options = DEFAULT) -> None:
    """List the services in a folder: what answers, where, and how many versions there are.

    Parameters
    ----------
    folder
        Where they are kept.
    """
    from noria.cli import screen
    from noria.workspace.light.listing import list_services as found_in

    found = found_in(folder)
    if options.json:
        screen.json(found)
        return
    if not found:
        screen.line(f"There is none in {folder}. `noria light model.txt` makes one.")
        return
    rows = [
        (each.name, each.model or "", each.versions, each.address or "stopped", each.predictions)
        for each in found
    ]
    screen.table(
        ["name", "model", "versions", "answers at", "predictions"], rows, right=["versions", "predictions"]
    )


def show_log(
    name: Annotated[str | None, Parameter(name="NAME")] = None,
    /,
    *,
    folder: Path = Path(FOLDER),
    limit: int = 20,
    options: Options = DEFAULT,
) -> None:
    """Show what a service was asked and answered, newest first. What runs puts it here every few seconds.

    Parameters
    ----------
    name
        Of the service. Default: the only one.
    folder
        Where it is kept.
    limit
        How many; 0: all.
    """
    from noria.cli import screen
    from noria.workspace.light.listing import read_log

    found = read_log(folder, name, limit=limit)
    if options.json:
        screen.json(screen.with_odd_numbers(found))
        return
    if not found:
        screen.line("Nothing was asked yet.")
        return
    screen.table(
        ["at", "prediction", "model", "inputs", "gave", "us"],
        [
            (screen.instant(each["at"]), each["prediction_id"], f"{each['model']}:{each['version']}",
             _fields(each.get("inputs")), _fields(each.get("outputs")) or screen.number(each["score"], 6),
             each["latency_us"])
            for each in found
        ],
        right=["us"],
    )  # fmt: skip


def _fields(values: Any) -> str:
    pairs = (values or {}).items()
    return " ".join(f"{name}={_value(each)}" for name, each in pairs if each is not None)
