"""Fitting models as steps: where the project's steps run, from versions, kept by what they depend on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from noria.pipelines.graph import Graph, Literal, Node, Result
from noria.records import RunId
from noria.training.declarations import Training
from noria.training.engine import Computed
from noria.training.fitting import fit_step
from noria.triggers.challenge import Fitter, TrainingRows

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["fit_graph", "make_fitter"]


def fit_graph(training: Training, rows: TrainingRows, recipe: Mapping[str, Any]) -> Graph:
    """Draw the graph of one step that fits a model."""
    function = training.function
    arguments = {
        "training": f"{function.__module__}:{function.__qualname__}",
        "features": rows.feature_version,
        "labels": rows.label_version,
        **recipe,
    }
    node = Node("fit", fit_step(training), {name: Literal(value) for name, value in arguments.items()})
    return Graph(f"fit_{training.name}", (node,), Result("fit"))


def make_fitter(project: "Project") -> Fitter:
    """Give what fits models as steps of a project."""

    def fit(
        training: Training, rows: TrainingRows, recipe: Mapping[str, Any], *, key: str, cause: str | None
    ) -> Computed:
        result = project.engine.run(fit_graph(training, rows, recipe), key=key, cause=cause)
        return Computed(result.value, RunId(result.runs["fit"]))

    return fit
