"""`noria feature list`, `show`, `get`, `materialize`, `compare`, `trace`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime


__all__ = ["compare", "get", "list_views", "materialize", "show_view", "trace"]

_VIEW = Parameter(name="VIEW")
_ENTITY = Parameter(name="ENTITY")
_AT = Parameter(name="--at", help="An instant such as 2013-05-01T12:00:00Z. Default: now.")
_SHOWN_ROWS = 20


def list_views(*, options: Options = DEFAULT) -> None:
    """List the feature views: source, entity, whether the online store holds them, which models use them."""
    from noria.cli import screen

    with options.open() as project:
        found = project.features.list()
    if options.json:
        screen.json(found)
        return
    if not found:
        screen.line("The project declares no feature view. Write one: `noria.FeatureView(...)`.")
        return
    screen.table(
        ["view", "source", "entity", "features", "online", "models"],
        [
            (
                each.name,
                each.source,
                ", ".join(each.entity),
                screen.number(each.features),
                _ONLINE[each.online],
                ", ".join(each.models),
            )
            for each in found
        ],
        right=["features"],
    )


def show_view(view: Annotated[str, _VIEW], /, *, options: Options = DEFAULT) -> None:
    """Show a feature view: how each feature is made, its values as of the newest row, who uses it.

    Parameters
    ----------
    view
        Its name.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.features.show(view)
    if options.json:
        screen.json(found)
        return
    summary = found.summary
    screen.line(f"Feature view {summary.name}", style="bold")
    screen.facts(
        {
            "source": summary.source,
            "entity": ", ".join(summary.entity),
            "event_at": found.event_at,
            "known_at": found.known_at,
            "entities": screen.number(found.entities),
            "as of": found.as_of,
            "online": _ONLINE[summary.online],
            "models": ", ".join(summary.models) or None,
            "versions": ", ".join(found.versions[:5]) or None,
            "definition": screen.digest(found.digest),
        }
    )
    screen.heading("Features")
    screen.table(
        ["feature", "is", "missing", "low", "mean", "high"],
        [
            (
                each.name,
                each.rule,
                screen.number(each.missing),
                *map(_short, (each.low, each.mean, each.high)),
            )
            for each in found.features
        ],
        right=["missing", "low", "mean", "high"],
    )


def get(
    view: Annotated[str, _VIEW],
    entity: Annotated[str, _ENTITY],
    /,
    *more: Annotated[str, _ENTITY],
    at: Annotated["str | None", _AT] = None,
    options: Options = DEFAULT,
) -> None:
    """Get the online features of entities.

    Parameters
    ----------
    view
        Its name.
    entity
        The entity; of several columns all, as `origin=JFK,dest=LAX`.
    more
        Further ones.
    at
        The instant.
    """
    from noria.cli import screen

    with options.open() as project:
        names = project.features.view(view).spec().entity
        asked = [_entity(each, names) for each in (entity, *more)]
        columns = {name: [each[name] for each in asked] for name in names}
        found = project.features.get([view], columns, at=_instant(at))
    rows = found.to_pylist()
    if options.json:
        screen.json([{name: _known(value) for name, value in row.items()} for row in rows])
        return
    for row in rows:
        screen.line(", ".join(f"{name} {row.pop(name)}" for name in names), style="bold")
        screen.facts({name.partition("__")[2]: _short(value) for name, value in row.items()})


def materialize(*views: Annotated[str, _VIEW], options: Options = DEFAULT) -> None:
    """Load feature views into the online store, from all that is known.

    Parameters
    ----------
    views
        Their names. Default: all.
    """
    from noria.cli import screen

    with options.open() as project:
        done = project.features.materialize(views)
    if options.json:
        screen.json(done)
        return
    for each in done:
        until = "" if each.known_until is None else f", known until {screen.instant(each.known_until)}"
        screen.line(f"{each.view}: loaded from {screen.count(each.rows, 'row')}{until}.")


def compare(
    view: Annotated[str, _VIEW],
    /,
    *,
    limit: Annotated[int, Parameter(name="--limit", help="Entities, the first by name.")] = 1_000,
    at: Annotated["str | None", _AT] = None,
    options: Options = DEFAULT,
) -> int:
    """Compare the online values of a view with the same computed offline. Exits with 1 if any differs.

    Parameters
    ----------
    view
        Its name.
    limit
        How many entities.
    at
        The instant.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.features.compare(view, limit=limit, at=_instant(at))
    if options.json:
        screen.json(found)
        return 1 if found.different else 0
    entities = "1 entity" if found.entities == 1 else f"{screen.number(found.entities)} entities"
    told = f"{screen.count(found.values, 'value')} of {entities}"
    if not found.different:
        screen.line(f"{found.view}: {told} are the same online and offline.")
        return 0
    screen.line(f"{found.view}: of {told} {screen.number(found.different)} differ.", style="bold")
    screen.table(
        ["entity", "feature", "online", "offline"],
        [(who, name, _short(online), _short(offline)) for who, name, online, offline in found.examples],
        right=["online", "offline"],
    )
    screen.line(
        f"What has landed since it was loaded is not in it: `noria feature materialize {found.view}`."
    )
    return 1


def trace(
    view: Annotated[str, _VIEW],
    entity: Annotated[str, _ENTITY],
    at: Annotated[str | None, Parameter(name="AT")] = None,
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """Trace an entity's features to the source rows that made them.

    Parameters
    ----------
    view
        Its name.
    entity
        The entity; of several columns all, as `origin=JFK,dest=LAX`.
    at
        An instant such as 2013-05-01T12:00:00Z. Default: now.
    """
    from noria.cli import screen

    with options.open() as project:
        names = project.features.view(view).spec().entity
        found = project.features.trace(view, _entity(entity, names), at=_instant(at))
    if options.json:
        screen.json(
            {
                "view": found.view,
                "entity": found.entity,
                "at": found.at,
                "values": found.values,
                "rows": found.rows.to_pylist(),
            }
        )
        return
    who = ", ".join(f"{name} {value}" for name, value in found.entity.items())
    screen.line(f"{found.view} of {who} as of {screen.instant(found.at)}", style="bold")
    screen.facts({name.partition("__")[2]: _short(value) for name, value in found.values.items()})
    screen.heading(f"Rows that were known ({screen.number(found.rows.num_rows)}), the newest event first")
    rows = found.rows.slice(0, _SHOWN_ROWS)
    screen.table(rows.column_names, [tuple(row.values()) for row in rows.to_pylist()])
    if found.rows.num_rows > _SHOWN_ROWS:
        screen.line(f"and {screen.number(found.rows.num_rows - _SHOWN_ROWS)} more; `--json` gives all")


_ONLINE = {"current": "as declared", "other": "another definition", "none": "not loaded"}


def _entity(text: str, names: Sequence[str]) -> dict[str, str]:
    if len(names) == 1:
        return {names[0]: text.removeprefix(f"{names[0]}=")}
    given = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if set(given) != set(names):
        wanted = ",".join(f"{name}=..." for name in names)
        raise ConfigError(f"{text!r} names no entity of {', '.join(names)}; write {wanted}")
    return given


def _instant(text: str | None) -> "datetime | None":
    from noria.clock import parse_instant

    if text is None:
        return None
    try:
        return parse_instant(text)
    except ValueError as err:
        raise ConfigError(f"{text!r} is no instant: {err}; write such as 2013-05-01T12:00:00Z") from err


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _short(value: float | None) -> str:
    return "" if _known(value) is None else f"{value:.6g}"
