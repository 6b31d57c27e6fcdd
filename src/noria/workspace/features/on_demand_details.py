"""What is told of a project's on-demand features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noria.features.registering import list_view_versions
from noria.workspace.features.records import OnDemandDetails

if TYPE_CHECKING:
    from noria.features.on_demand import OnDemand
    from noria.workspace.project import Project

__all__ = ["list_on_demand", "tell_on_demand"]


def list_on_demand(project: Project) -> tuple[OnDemandDetails, ...]:
    """Tell about every on-demand feature, by name."""
    return tuple(tell_on_demand(project, each) for _, each in sorted(project.declarations.on_demand.items()))


def tell_on_demand(project: Project, feature: OnDemand) -> OnDemandDetails:
    """Tell about an on-demand feature."""
    spec = feature.spec()
    trainings = project.declarations.trainings.values()
    using = [each for each in trainings if feature.name in {one.name for one in each.on_demand}]
    versions = [
        version for each in using for version in project.ledger.list_versions(kind="model", name=each.name)
    ]
    code = feature.function.__code__
    file = Path(code.co_filename)
    place = file.relative_to(project.root).as_posix() if file.is_relative_to(project.root) else file.name
    return OnDemandDetails(
        name=spec.name,
        description=feature.description,
        fields=(*spec.numbers, *spec.texts),
        features=spec.features,
        outputs=spec.outputs,
        errors=spec.errors,
        place=f"{place}:{code.co_firstlineno}",
        digest=spec.digest,
        models=tuple(sorted(each.name for each in using)),
        versions=tuple(
            each.ref for each in sorted(versions, key=lambda each: (each.at, each.number), reverse=True)
        ),
        owner=feature.owner,
        tags=feature.tags,
        definitions=tuple(each.ref for each in reversed(list_view_versions(project.ledger, spec.name))),
    )
