"""What to do about a table that is declared, and not there yet."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["find_advice"]


def find_advice(project: "Project", name: str) -> str | None:
    """Say how a table comes to be that is not there; None where nothing of the project makes it."""
    from noria.workspace.transforming import project_models

    models = project_models(project)
    for problem in models.problems:
        if problem.model == name:
            return problem.message
    if (model := models.found.get(name)) is not None:
        if model.is_view:
            return f"{model.path} is a view that cannot be read: `noria transform --plan` says why"
        return f"{model.path} makes it: run `noria transform {name}`"
    if name in project.declarations.datasets:
        return f"nothing has landed in this dataset yet: `noria ingest {name}` takes its rows in"
    return None
