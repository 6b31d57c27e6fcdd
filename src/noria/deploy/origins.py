"""What a version was made from, as far as the ledger tells, and what no gate lets through whatever it checks.

A training set with `corrected=True` holds what was not known at its instants. It is good for looking back;
a model that learned from it promises more than it keeps.
"""

from noria.ledger.store import Ledger
from noria.records import Version

__all__ = ["corrected_sets"]


def corrected_sets(ledger: Ledger, version: Version) -> list[Version]:
    """Give the corrected training sets that a version was made from, directly or through other versions.

    Followed are the inputs of the run that made it, and of the runs around that one.
    """
    found: list[Version] = []
    waiting, seen = [version], {version.id}
    runs: set[str] = set()
    while waiting:
        each = waiting.pop()
        if each.kind == "training_set" and each.facts.get("corrected"):
            found.append(each)
        run = each.run
        while run is not None and run not in runs:
            runs.add(run)
            for edge in ledger.list_edges(run=run):
                if edge.role == "input" and edge.version not in seen:
                    seen.add(edge.version)
                    waiting.append(ledger.get_version_by_id(edge.version))
            run = ledger.get_run(run).parent
    return sorted(found, key=lambda each: (each.name, each.number))
