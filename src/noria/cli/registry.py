"""`noria model list`, `noria model show`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.features.statistics.records import SetStatistics, Suspicion
    from noria.workspace.models.listing import ListedModel

__all__ = ["list_models", "show_model"]


def list_models(name: str | None = None, /, *, options: Options = DEFAULT) -> None:
    """List model versions, where they stand, and their quality on the rows that were held back.

    Parameters
    ----------
    name
        Only the versions of this model.
    """
    from noria.cli import screen
    from noria.workspace.models.listing import list_by_name

    with options.open() as project:
        models = list_by_name(project, name)
    if options.json:
        screen.json(models)
        return
    rows: list[tuple[str, ...]] = [
        (
            each.ref,
            screen.instant(each.at),
            screen.number(each.metrics.get("auc"), 4),
            screen.number(each.metrics.get("log_loss"), 4),
            ", ".join(each.stands_in) or "-",
            _labels(each),
            _origin(each.model.parents, each.model.facts),
        )
        for each in models
        if each.is_listed
    ]
    columns = ["model", "made at", "AUC", "log loss", "stands in", "labels", "what it is"]
    if all(row[-2] == "-" for row in rows):
        rows, columns = [(*row[:-2], row[-1]) for row in rows], [*columns[:-2], columns[-1]]
    if rows:
        screen.table(columns, rows, right=["AUC", "log loss"], wrap="what it is")
    else:
        screen.line("No model is registered yet.")
    if hidden := len(models) - len(rows):
        were = "label was" if hidden == 1 else "labels were"
        screen.line(f"{screen.count(hidden, 'version')} whose {were} deleted: `noria model list --json`.")


def show_model(reference: Annotated[str, Parameter(name="MODEL")], /, *, options: Options = DEFAULT) -> None:
    """Show a model version: what it reads, how good it was, which gates it met; every digest is verified.

    Parameters
    ----------
    reference
        NAME (its newest version), NAME:3, NAME@production, or models:/NAME@ALIAS.
    """
    from noria.cli import screen
    from noria.cli.model_shown import show_standing, standing_of
    from noria.training.statistics import list_suspicions, read_statistics

    with options.open() as project:
        version = project.model(reference)
        standing = standing_of(project, version)
        details = project.registry.show(version)
        suspicions = list_suspicions(project.ledger, version)
        statistics = (
            None if suspicions is None else read_statistics(project.ledger, project.registry, version)
        )
        judged = [
            event
            for event in project.ledger.list_events(subject=version.ref)
            if event.verb.startswith(("gate.", "canary."))
        ]
    if options.json:
        gates = [{"event": each.id, "verb": each.verb, "at": each.at} | each.payload for each in judged]
        screen.json({"details": details, "gates": gates, "statistics": statistics, **standing.as_json()})
        return
    model = details.model
    screen.line(f"Model {model.ref}", style="bold")
    told = {
        "made at": model.at, "what it is": _origin(model.parents, model.facts), "format": model.format,
        "digest": model.sha256, "run": model.run, **standing.facts(),
    }  # fmt: skip
    if details.signature is not None:
        told["trained on"] = (
            f"{screen.number(model.facts.get('rows'))} rows, "
            f"{screen.number(model.facts.get('positives'))} positive, known at {_until(model.facts)}"
        )
    screen.facts(told)
    if model.metrics:
        screen.heading(f"On {screen.number(model.facts.get('holdout_rows'))} rows that were held back")
        screen.facts(dict(sorted(model.metrics.items())))
    screen.heading("Gates")
    rows = [
        (screen.instant(each.at), each.verb.replace(".", " "), str(each.payload.get("reason", "")))
        for each in judged
    ]
    if rows:
        screen.table(["at", "", "because"], rows, wrap="because")
    else:
        screen.line("It met none itself." if model.parents else "It met none yet.")
    show_standing(standing)
    if details.signature is not None:
        screen.heading("Inputs, as they were in training")
        inputs = [
            (each.name, each.kind, *_profile(details.profile.get(each.name, {})))
            for each in details.signature.inputs
        ]
        columns = ["input", "kind", "low", "mean", "high", "missing"]
        screen.table(columns, inputs, right=columns[2:])
        _show_statistics(statistics, suspicions)
    screen.heading("Parts")
    parts = [
        (name, screen.number(part.size_bytes), screen.digest(part.sha256))
        for name, part in sorted(details.parts.items())
    ]
    screen.table(["part", "bytes", "sha256"], parts, right=["bytes"])


def _show_statistics(statistics: "SetStatistics | None", suspicions: "Sequence[Suspicion] | None") -> None:
    from noria.cli import screen

    screen.heading("What features tell of the label, each alone")
    if statistics is None or suspicions is None:
        screen.line("They were not looked at.")
        return
    rows = [
        (
            each.name,
            f"{each.with_label.information_share:.1%}",
            screen.number(each.with_label.auc, 3),
            screen.number(each.with_label.spearman, 3),
            f"{each.missing_share:.1%}",
        )
        for each in statistics.strongest()
    ]
    columns = ["feature", "of the label's entropy", "AUC", "Spearman", "missing"]
    screen.table(columns, rows, right=columns[1:])
    for group in statistics.groups:
        screen.line(f"{', '.join(group)} say the same.")
    screen.heading("Features that may know the outcome")
    if not suspicions:
        screen.line(f"None of {len(statistics.features)} is suspicious.")
        return
    told = [(each.feature, each.rule.replace("_", " "), each.detail) for each in suspicions]
    screen.table(["feature", "", "because"], told, wrap="because")


def _labels(model: "ListedModel") -> str:
    """Give what is said of a version that moves nothing: aliases and the stage."""
    stage = () if model.stage == "None" else (model.stage,)
    gone = () if model.deleted_at is None else ("deleted",)
    return ", ".join((*(f"@{each}" for each in model.aliases), *stage, *gone)) or "-"


def _origin(parents: tuple[str, ...], facts: dict[str, object]) -> str:
    if "drill" in facts:
        return f"drill: {facts['drill']}"
    if "source" in facts:
        return f"registered from {facts['source']}"
    if "estimator" in facts:
        return f"registered as it is: {facts['estimator']}"
    if parents:
        return f"refit of {parents[0].rpartition('/')[2]} on all rows"
    return "trained, judged on held-back rows"


def _profile(column: dict[str, object]) -> tuple[str, str, str, str]:
    from noria.cli import screen

    missing = column.get("missing_share")
    told = f"{missing:.1%}" if isinstance(missing, float | int) else "-"
    if column.get("kind") == "category":
        return "-", f"{column['categories']} kinds", "-", told
    low, mean, high = (column.get(name) for name in ("low", "mean", "high"))
    shown = [screen.number(each, 2) if isinstance(each, float | int) else "-" for each in (low, mean, high)]
    return shown[0], shown[1], shown[2], told


def _until(facts: dict[str, object]) -> str:
    from noria.cli import screen
    from noria.clock import parse_instant

    until = facts.get("until")
    return screen.instant(parse_instant(until)) if isinstance(until, str) else "-"
