"""Wiring of the warehouse: a project's models, and what builds them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from noria.warehouse.declarations import Model as PythonModel
from noria.warehouse.models import Models, find_models
from noria.warehouse.transforming import Settings, Warehouse

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["open_warehouse", "project_models", "tables_url", "view_queries"]


def project_models(project: "Project") -> Models:
    """Read the models of a project: SQL files, functions of its modules, those of a dbt project."""
    project.refresh()
    declared = project.declarations
    settings = project.settings.warehouse
    return find_models(
        project.root,
        settings.models,
        functions=declared.models.values(),
        code_of=_code_of(project) if declared.models else None,
        datasets=declared.datasets,
        kept=project.state / "warehouse" / "parsed.json",
        dbt=settings.dbt or None,
    )


def open_warehouse(project: "Project") -> Warehouse:
    """Give what plans and builds the models of a project."""
    settings = project.settings.warehouse
    return Warehouse(
        project_models(project),
        ledger=project.ledger,
        settings=Settings(
            url=tables_url(project),
            folder=project.state / "warehouse",
            memory=settings.memory,
            threads=settings.threads,
        ),
    )


def tables_url(project: "Project") -> str:
    """Give where the project's tables are; nothing is opened."""
    storage = project.settings.stores.storage
    return f"{storage.rstrip('/')}/tables" if "://" in storage else str(project.root / storage / "tables")


def view_queries(project: "Project") -> dict[str, str]:
    """Give the SELECT of each view, each after those that it reads: they are queries, and never stored."""
    return project_models(project).views


def _code_of(project: "Project") -> Callable[[PythonModel], tuple[str, str]]:
    from noria.pipelines.code import ProjectCode

    code = ProjectCode(project.root)

    def of(model: PythonModel) -> tuple[str, str]:
        function = model.function
        file = Path(function.__code__.co_filename)
        shown = file.relative_to(project.root).as_posix() if file.is_relative_to(project.root) else str(file)
        place = f"{shown}, line {function.__code__.co_firstlineno}"
        return place, code.of(function.__module__, file=file).digest

    return of
