"""Beginning a test or a bandit that the project declares."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from noria.deploy.bandit_declarations import Bandit
from noria.deploy.bandit_moves import begin_bandit
from noria.deploy.experiments import begin_test
from noria.deploy.releases import find_standing
from noria.errors import ConfigError, Conflict
from noria.records import new_id
from noria.serving.records import HEADER_UNIT
from noria.workspace.models.deploying import let_in
from noria.workspace.models.names import find_version

if TYPE_CHECKING:
    from noria.deploy.environments import Move
    from noria.workspace.project import Project

__all__ = ["begin_trial"]

_OF_COUNTS = ("error_rate", "latency_ms")


def begin_trial(
    project: "Project", test: str, references: Sequence[str], *, environment: str, reason: str
) -> "Move":
    """Let versions answer beside the stable one, by a declared test; see `TrialVerbs.begin_test`."""
    declared = project.declarations.test(test)
    if declared.sticky.startswith(HEADER_UNIT) and declared.metric not in _OF_COUNTS:
        raise ConfigError(
            f"{test!r} assigns by {declared.sticky!r} and is judged by {declared.metric}; headers are not "
            "logged, so rows of one unit could not be counted once: name a column that requests bring"
        )
    versions = [find_version(project, each) for each in references]
    names = {each.name for each in versions}
    if len(names) != 1:
        told = ", ".join(sorted(names)) or "none"
        raise ConfigError(f"a test is of versions of one model, and these are of {told}; give such")
    at, name = project.now(environment), names.pop()
    admitted = [
        let_in(project, each, environment=environment, verb="test", reason=reason or f"test {test}")
        for each in versions
    ]
    place, _, event = admitted[-1]
    standing = find_standing(project.ledger, environment=environment, deployment=name)
    if standing is None:
        raise Conflict(f"nothing is stable at {name}@{environment}; deploy a version, then test another")
    releases = [standing.release, *(release for _, release, _ in admitted)]
    key = f"person:{new_id()}"
    if isinstance(declared, Bandit):
        return begin_bandit(place, declared, releases, key=key, cause=event.id, at=at)
    return begin_test(place, declared, releases, key=key, cause=event.id, at=at)
