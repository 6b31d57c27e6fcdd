"""OpenLineage events of every run of a project, to a file or a URL."""

import logging
from typing import TYPE_CHECKING

from noria.errors import StoreError
from noria.ledger.store import Ledger
from noria.pipelines.openlineage.emitter import Lineage, LineageEmitter
from noria.records import Run, RunId, RunState, Version

if TYPE_CHECKING:
    from noria.workspace.opened import Opened

__all__ = ["observe"]

_LOG = logging.getLogger(__name__)


def observe(project: "Opened", ledger: Ledger) -> LineageEmitter:
    """Let every run that begins or ends be told where `[compute] lineage` says."""
    emitter = LineageEmitter.open(
        project.settings.compute.lineage, root=project.root, namespace=f"noria://{project.name}"
    )

    def tell(run_id: RunId) -> None:
        try:
            run = ledger.get_run(run_id)
            parent = None if run.parent is None else ledger.get_run(run.parent)
            if run.state is RunState.RUNNING:
                emitter.started(Lineage(run=run, parent=parent, inputs=(), outputs=()))
                return
            inputs, outputs = _versions(ledger, run)
            emitter.ended(Lineage(run=run, parent=parent, inputs=inputs, outputs=outputs))
        except StoreError as error:  # a full disk of the events must not end the work that they tell of
            _LOG.warning("no lineage event of run %s: %s", run_id, error)

    ledger.observer = tell
    return emitter


def _versions(ledger: Ledger, run: Run) -> tuple[list[Version], list[Version]]:
    edges = ledger.list_edges(run=run.id)
    found = [(each.role, ledger.get_version_by_id(each.version)) for each in edges]
    inputs = [version for role, version in found if role == "input"]
    return inputs, [version for role, version in found if role == "output"]
