"""`noria serve`."""

import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import DeploymentError, NoriaError, NotFound, StoreError
from noria.workspace.project import Project
from noria.workspace.up.log_shipping import LogShipping
from noria.workspace.up.records import Notice, NoticeKind

if TYPE_CHECKING:
    from noria.deploy.supervisor import Supervisor
    from noria.serving.counts import RouteCounts
    from noria.serving.records import Route

__all__ = ["serve"]

_LOOK_EVERY_S = 0.5  # at the pointer: a rollback or promotion is followed within a second
_RETRY_S = 10.0  # a route that was refused


def serve(
    reference: Annotated[str | None, Parameter(name="MODEL@ENVIRONMENT")] = None,
    /,
    *,
    port: int | None = None,
    options: Options = DEFAULT,
) -> None:
    """Answer requests over HTTP by what is deployed, until Ctrl-C.

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
        supervisor = project.supervisor(environment, port=port)
        shipping = LogShipping(project, lambda: [(supervisor, name)], failed=_note_shipping())
        number, route = _route(project, environment, name)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops a service is as good as Ctrl-C
        try:
            supervisor.start(route)
            _show_address(project, supervisor, route, as_json=options.json)
            shipping.start()
            with _trials_watched(project, supervisor, environment, name) as check:

                def check_all() -> None:
                    shipping.check()
                    check()

                _keep(project, supervisor, environment, name, number, check=check_all)
        except KeyboardInterrupt as stop:
            shipping.stop()
            told = "what it answered is in the table predictions"
            try:
                shipping.ship(supervisor, name)
            except NoriaError as err:
                told = f"what it answered last waits in its log, and is shipped the next time: {err}"
            raise KeyboardInterrupt(f"{place.subject} stopped; {told}") from stop
        finally:
            shipping.stop()
            supervisor.stop()


def _place(project: Project, reference: str | None) -> tuple[str, str]:
    if reference is None:
        names = {each.name for each in project.ledger.list_pointers(environment="production")}
        if not names:
            raise DeploymentError(
                "nothing is deployed in production; `noria deploy NAME@production` lets a model answer there"
            )
        if len(names) > 1:
            raise DeploymentError(
                f"{len(names)} deployments are in production, {', '.join(sorted(names))}; name one, as "
                f"{min(names)}@production, or let `noria up` serve them all"
            )
        return "production", names.pop()
    return project.place(reference)


def _route(project: Project, environment: str, name: str) -> tuple[int, "Route"]:
    """Give where the deployment points to, and how many moves brought it there."""
    pointer = project.ledger.find_pointer(environment, name)
    if pointer is None:
        known = {f"{each.name}@{each.environment}" for each in project.ledger.list_pointers()}
        raise NotFound("deployment", f"{name}@{environment}", known)
    place = project.deployment(environment, name)
    version = project.ledger.get_version_by_id(pointer.version)
    return pointer.number, place.route(version)


def _keep(
    project: Project,
    supervisor: "Supervisor",
    environment: str,
    name: str,
    number: int,
    *,
    check: Callable[[], None],
) -> None:
    """Follow the pointer and ship the log until Ctrl-C. Raises `DeploymentError` if the worker gives up."""
    from noria.cli import screen

    told, not_before = "", 0.0
    while True:
        time.sleep(_LOOK_EVERY_S)
        supervisor.check()
        check()
        if time.monotonic() < not_before:
            continue
        try:
            pointer = project.ledger.find_pointer(environment, name)
            if pointer is not None and pointer.number != number:
                moved_to, route = _route(project, environment, name)
                supervisor.swap(route)
                number = moved_to
                screen.line(f"{environment}/{name} answers with {_told(route)} now: {pointer.reason}")
            told = ""
        except NoriaError as err:  # what answers goes on
            supervisor.check()
            not_before = time.monotonic() + (0.0 if isinstance(err, StoreError) else _RETRY_S)
            if str(err) != told:
                screen.line(f"{environment}/{name} answers as before: {err}")
            told = str(err)
        screen.flush()


@contextmanager
def _trials_watched(
    project: Project, supervisor: "Supervisor", environment: str, name: str
) -> Iterator[Callable[[], None]]:
    """Look at what is on trial meanwhile; give what raises why that ended. A replay judges its own."""
    from noria.workspace.up.trials import TrialWatch

    if project.environment(environment).clock != "wall":
        yield lambda: None
        return

    def counts(_: str, deployment: str) -> "RouteCounts | None":
        return supervisor.counts(deployment) if supervisor.is_running else None

    watch = TrialWatch(
        project,
        places=lambda: [(environment, name)],
        counts=counts,
        is_active=lambda: True,
        judge_every_s=project.settings.server.judge_every_s,
        tell=_tell,
    )
    watch.start()
    try:
        yield watch.check
    finally:
        watch.stop()


def _tell(notice: Notice) -> None:
    from noria.cli import screen

    if notice.kind is NoticeKind.WARNING:  # of moves it is told as they are followed
        screen.line(notice.message)
        screen.flush()


def _note_shipping() -> Callable[["Supervisor", str, NoriaError | None], None]:
    """Give what tells once why a log cannot be shipped."""
    from noria.cli import screen

    told = ""

    def note(_: "Supervisor", deployment: str, error: NoriaError | None) -> None:
        nonlocal told
        if error is not None and str(error) != told:
            screen.line(f"{deployment} is not in the lake and waits in its log: {error}")
            screen.flush()
        told = "" if error is None else str(error)

    return note


def _show_address(project: Project, supervisor: "Supervisor", route: "Route", *, as_json: bool) -> None:
    from noria.cli import screen

    address = str(supervisor.address)
    url = f"{address}/models/{quote(route.deployment, safe='')}/predict"
    request = _example(project, route)
    if as_json:
        screen.json(
            {
                "address": address, "url": url, "docs": f"{address}/docs", "route": route.number,
                "example": request,
            }
        )  # fmt: skip
    else:
        import msgspec

        screen.line(f"{route.environment}/{route.deployment} answers at {address} with {_told(route)}.")
        screen.heading("Try it, in another terminal")
        screen.verbatim(f"curl -s {url} -d {shlex.quote(msgspec.json.encode(request).decode())}")
        screen.line(f"{address}/docs shows in a browser what it takes, and by which protocols.")
        screen.heading("Ctrl-C stops it.")
    screen.flush()


def _told(route: "Route") -> str:
    return ", ".join(f"{each.model}:{each.version}" for each in route.models)


def _example(project: Project, route: "Route") -> dict[str, Any]:
    """Give the fields of a request that was answered, else of a row stored with the model."""
    from noria.deploy.shipping import PREDICTIONS
    from noria.serving.formats.samples import sample_row

    model = route.models[0]
    wanted = [each.name for each in model.inputs if each.kind in ("number", "category", "string")]
    wanted += [name for view in model.views for name in view.entity]
    wanted += [name for spec in model.on_demand for name in (*spec.numbers, *spec.texts)]
    values = sample_row(model)
    if project.lake.exists(PREDICTIONS):
        found = project.query(
            f"select inputs from {PREDICTIONS} where environment = '{route.environment}' "
            f"and deployment = '{route.deployment}' order by \"at\" desc limit 1"
        ).to_pylist()
        values |= (found[0]["inputs"] or {}) if found else {}
    request: dict[str, Any] = {name: values.get(name) for name in dict.fromkeys(wanted)}
    if project.environment(route.environment).clock == "replay":
        from noria.clock import format_instant

        request["at"] = format_instant(project.now(route.environment))
    return request
