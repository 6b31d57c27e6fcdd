"""`noria feature list`, `show`, `get`, `materialize`, `compare`, `trace`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

    from noria.features.fields import Field
    from noria.features.statistics.records import ViewStatistics
    from noria.workspace.features.records import OnDemandDetails

__all__ = ["compare", "get", "instant_of", "list_views", "materialize", "show_view", "trace"]

_VIEW = Parameter(name="VIEW")
_ENTITY = Parameter(name="ENTITY")
_AT = Parameter(name="--at", help="An instant such as 2013-05-01T12:00:00Z. Default: now.")
_SHOWN_ROWS, _ELEMENTS = 20, 4


def list_views(
    *,
    search: Annotated[str, Parameter(name="--search", help="Words that all have to be found.")] = "",
    tag: Annotated[
        tuple[str, ...], Parameter(name="--tag", negative="", help="Only those with it; may be repeated.")
    ] = (),
    owner: Annotated[str | None, Parameter(name="--owner", help="Only theirs.")] = None,
    options: Options = DEFAULT,
) -> None:
    """List the feature views: source, entity, whether the online store holds them, which models use them.

    With `--search` the best come first: words are sought in names, descriptions, entities, sources, rules.
    """
    from noria.cli import screen

    with options.open() as project:
        found = project.features.search(search, tags=tag, owner=owner)
        declared = bool(project.declarations.views or project.declarations.on_demand)
    on_demand = [each.details for each in found.on_demand]
    views = [each.summary for each in found.views]
    if options.json:
        screen.json([*views, *on_demand])
        return
    if on_demand:
        screen.table(
            ["on demand", "reads", "gives", "models"],
            [
                (each.name, ", ".join((*each.fields, *each.features)), ", ".join(each.outputs),
                 ", ".join(each.models))
                for each in on_demand
            ],
        )  # fmt: skip
        for hit in found.on_demand if search else ():
            if hit.outputs:
                screen.line(f"{hit.details.name}: {', '.join(hit.outputs)}")
        if not views:
            return
        screen.line("")
    if not views:
        if not declared:
            screen.line("The project declares no feature view. Write one: `noria.FeatureView(...)`.")
            return
        meant = f" Did you mean {', '.join(map(repr, found.meant))}?" if found.meant else ""
        screen.line(f"No feature view is like that.{meant} `noria feature list` shows all.")
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
            for each in views
        ],
        right=["features"],
    )
    for late in (each for each in views if each.is_stale):
        waits = f"something waits for {late.behind_s:.1f} s, allowed are {late.freshness}"
        screen.line(f"{late.name} is stale: {waits}")
    if search:
        for each in found.views:
            if each.features:
                screen.line(f"{each.summary.name}: {', '.join(each.features)}")


def show_view(view: Annotated[str, _VIEW], /, *, options: Options = DEFAULT) -> None:
    """Show a feature view: how each feature is made, its values as of the newest row, who uses it.

    Of an on-demand feature: what it reads and gives, where its function is, who uses it.

    Parameters
    ----------
    view
        Its name.
    """
    from noria.cli import screen

    with options.open() as project:
        if view in project.declarations.on_demand:
            details = project.features.show_on_demand(view)
            screen.json(details) if options.json else _show_on_demand(details)
            return
        found = project.features.show(view)
    if options.json:
        screen.json(found)
        return
    summary = found.summary
    screen.line(f"Feature view {summary.name}", style="bold")
    screen.facts(
        {
            "about": summary.description,
            "owner": summary.owner,
            "tags": ", ".join(summary.tags) or None,
            "source": summary.source,
            "entity": ", ".join(summary.entity),
            "event_at": found.event_at,
            "known_at": found.known_at,
            "entities": screen.number(found.entities),
            "as of": found.as_of,
            "online": _ONLINE[summary.online],
            "counted until": summary.known_until,
            "behind": None if summary.behind_s is None else f"{summary.behind_s:.1f} s",
            "freshness": summary.freshness,
            "models": ", ".join(summary.models) or None,
            "versions": ", ".join(found.versions[:5]) or None,
            "definition": screen.digest(found.digest),
            "on record": ", ".join(found.definitions[:5]) or None,
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
    for each in found.features:
        if each.description:
            screen.line(f"{each.name}: {each.description}")
    if found.statistics is not None:
        _tell_statistics(found.statistics)


def _show_on_demand(found: "OnDemandDetails") -> None:
    from noria.cli import screen

    screen.line(f"On-demand feature {found.name}", style="bold")
    screen.facts(
        {
            "about": found.description,
            "owner": found.owner,
            "tags": ", ".join(found.tags) or None,
            "reads of a request": ", ".join(found.fields) or None,
            "reads": ", ".join(found.features) or None,
            "gives": ", ".join(f"{found.name}__{each}" for each in found.outputs),
            "where it fails": {"missing": "values are missing", "refuse": "the request is refused"}[
                found.errors
            ],
            "function": found.place,
            "models": ", ".join(found.models) or None,
            "versions": ", ".join(found.versions[:5]) or None,
            "definition": screen.digest(found.digest),
            "on record": ", ".join(found.definitions[:5]) or None,
        }
    )


def _tell_statistics(found: "ViewStatistics") -> None:
    """Say what was measured when the definition was put on record."""
    from noria.cli import screen

    of = f"{screen.number(found.sampled)} of {screen.number(found.entities)} entities"
    screen.heading(f"Statistics of {of}")
    quantiles = ["p05", "p50", "p95"]
    screen.table(
        ["feature", "missing", "mean", "std", *quantiles],
        [
            (
                each.name.partition("__")[2],
                screen.share(each.missing_share),
                *map(_short, (each.mean, each.std)),
                *(_short(each.quantiles.get(name)) for name in quantiles),
            )
            for each in found.features
        ],
        right=["missing", "mean", "std", *quantiles],
    )
    for group in found.groups:
        screen.line(f"These say the same: {', '.join(name.partition('__')[2] for name in group)}")
    for pair in found.related[:5]:
        left, right = (name.partition("__")[2] for name in (pair.left, pair.right))
        screen.line(f"{left} and {right}: {pair.measure} {pair.value:.2f}")


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
        The entity; of several columns all, as `origin=JFK,dest=LAX`. For an on-demand feature also what it
        reads of a request, as `carrier=UA,distance=719`.
    more
        Further ones.
    at
        The instant.
    """
    from noria.cli import screen

    with options.open() as project:
        fields = project.features.request_columns(view)
        names = tuple(each.name for each in fields)
        asked = [_entity(each, names) for each in (entity, *more)]
        columns = {each.name: [_of_field(each, one[each.name]) for one in asked] for each in fields}
        found = project.features.get([view], columns, at=instant_of(at))
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
        found = project.features.compare(view, limit=limit, at=instant_of(at))
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
        found = project.features.trace(view, _entity(entity, names), at=instant_of(at))
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


def _of_field(field: "Field", text: str) -> str | float:
    if field.kind == "category":
        return text
    try:
        return float(text)
    except ValueError as err:
        raise ConfigError(
            f"{field.name}={text} is no number; wanted is one, such as {field.name}=719"
        ) from err


def _entity(text: str, names: Sequence[str]) -> dict[str, str]:
    if len(names) == 1:
        return {names[0]: text.removeprefix(f"{names[0]}=")}
    given = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if set(given) != set(names):
        wanted = ",".join(f"{name}=..." for name in names)
        raise ConfigError(f"{text!r} names no entity of {', '.join(names)}; write {wanted}")
    return given


def instant_of(text: str | None) -> "datetime | None":
    """Give the instant that an option names. Raises `ConfigError`."""
    from noria.clock import parse_instant

    if text is None:
        return None
    try:
        return parse_instant(text)
    except ValueError as err:
        raise ConfigError(f"{text!r} is no instant: {err}; write such as 2013-05-01T12:00:00Z") from err


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _short(value: Any) -> str:
    """Write a value of a feature: a number, a text, or the first of a vector or list."""
    if _known(value) is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        told = ", ".join(map(_short, value[:_ELEMENTS]))
        return f"[{told}]" if len(value) <= _ELEMENTS else f"[{told}, ... {len(value)} in all]"
    return f"{value:.6g}"
