"""`noria serve`."""

import shlex
import signal
import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import NotFound
from noria.workspace.project import Project

if TYPE_CHECKING:
    from noria.deploy.supervisor import Supervisor
    from noria.serving.records import Route

__all__ = ["serve"]

_LOOK_EVERY_S = 1.0  # at the pointer: a rollback or promotion is followed
_SHIP_EVERY_S = 10.0  # the prediction log, into the lake


def serve(
    reference: Annotated[str | None, Parameter(name="MODEL@ENVIRONMENT")] = None,
    /,
    *,
    port: int | None = None,
    options: Options = DEFAULT,
) -> None:
    """Answer requests over HTTP (Open Inference Protocol v2) by what is deployed, until Ctrl-C.

    A rollback or promotion by another command is followed. Predictions are logged; the log becomes rows of
    the table `predictions` every few seconds, and when the server stops.

    Parameters
    ----------
    reference
        Such as late_arrival@production. Default: what is in production, if it is one model.
    port
        Where to listen; 0 takes a free one. Default: what noria.toml says.
    """
    with options.open() as project:
        environment, name = _place(project, reference)
        place = project.deployment(environment, name)
        supervisor = project.supervisor(environment, name, port=port)
        number, route = _route(project, environment, name)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a service is as good as Ctrl-C
        try:
            supervisor.start(route)
            _show_address(project, supervisor, route, as_json=options.json)
            _keep(project, supervisor, environment, name, number)
        except KeyboardInterrupt as stop:
            _ship(project, supervisor, place.subject)
            raise KeyboardInterrupt(
                f"{place.subject} stopped; what it answered is in the table predictions"
            ) from stop
        finally:
            supervisor.stop()


def _place(project: Project, reference: str | None) -> tuple[str, str]:
    if reference is None:
        names = {each.name for each in project.ledger.list_pointers(environment="production")}
        if len(names) != 1:
            raise NotFound("deployment", "production", {f"{each}@production" for each in names})
        return "production", names.pop()
    return project.place(reference)


def _route(project: Project, environment: str, name: str) -> tuple[int, "Route"]:
    """Give where the deployment points to, and how many moves brought it there."""
    from noria.deploy.releases import serve_route

    pointer = project.ledger.find_pointer(environment, name)
    if pointer is None:
        known = {f"{each.name}@{each.environment}" for each in project.ledger.list_pointers()}
        raise NotFound("deployment", f"{name}@{environment}", known)
    place = project.deployment(environment, name)
    version = project.ledger.get_version_by_id(pointer.version)
    return pointer.number, serve_route(project.ledger, version, fetch=place.fetch, samples=place.samples)


def _keep(project: Project, supervisor: "Supervisor", environment: str, name: str, number: int) -> None:
    """Follow the pointer and ship the log until Ctrl-C. Raises `DeploymentError` if the worker gives up."""
    from noria.cli import screen

    shipped = time.monotonic()
    while True:
        time.sleep(_LOOK_EVERY_S)
        pointer = project.ledger.find_pointer(environment, name)
        if pointer is not None and pointer.number != number:
            number, route = _route(project, environment, name)
            supervisor.swap(route)
            screen.line(f"{environment}/{name} was moved: {pointer.reason}")
        if time.monotonic() - shipped > _SHIP_EVERY_S:
            _ship(project, supervisor, f"{environment}/{name}")
            shipped = time.monotonic()
        elif not supervisor.is_running:
            time.sleep(_LOOK_EVERY_S)
            _ = supervisor.pid  # it is started again, or this says why not


def _ship(project: Project, supervisor: "Supervisor", subject: str) -> None:
    from noria.deploy.shipping import ship_predictions

    if supervisor.is_running:
        ship_predictions(
            supervisor.spool, project.lake, app_id=f"predictions/{subject}", rotate=supervisor.rotate
        )


def _show_address(project: Project, supervisor: "Supervisor", route: "Route", *, as_json: bool) -> None:
    from noria.cli import screen

    url = f"{supervisor.address}/v2/models/{route.deployment}/infer"
    request = _example(project, route)
    if as_json:
        screen.json(
            {"address": str(supervisor.address), "url": url, "route": route.number, "example": request}
        )
    else:
        import msgspec

        told = ", ".join(f"{each.model}:{each.version}" for each in route.models)
        screen.line(f"{route.environment}/{route.deployment} answers at {supervisor.address} with {told}.")
        screen.heading("Try it, in another terminal")
        screen.verbatim(f"curl -s {url} -d {shlex.quote(msgspec.json.encode(request).decode())}")
        screen.heading("Ctrl-C stops it.")
    screen.flush()


def _example(project: Project, route: "Route") -> dict[str, Any]:
    """Give a request with the values of one that was answered, or with blanks where there was none."""
    from noria.deploy.shipping import PREDICTIONS

    model = route.models[0]
    wanted = [each.name for each in model.inputs if each.kind != "feature"]
    wanted += [name for view in model.views for name in view.entity]
    names = list(dict.fromkeys(wanted))
    inputs: dict[str, Any] = {}
    if project.lake.exists(PREDICTIONS):
        found = project.query(
            f"select inputs from {PREDICTIONS} where environment = '{route.environment}' "
            f"and deployment = '{route.deployment}' order by \"at\" desc limit 1"
        ).to_pylist()
        inputs = found[0]["inputs"] if found else {}
    numbers = {each.name for each in model.inputs if each.kind == "number"}
    request: dict[str, Any] = {
        "inputs": [
            {
                "name": name, "shape": [1],
                "datatype": "FP64" if name in numbers else "BYTES",
                "data": [inputs.get(name)],
            }
            for name in names
        ]
    }  # fmt: skip
    if project.environment(route.environment).clock == "replay":
        from noria.clock import format_instant

        request["parameters"] = {"at": format_instant(project.now(route.environment))}
    return request
