"""Kept training sets lose a subject's rows: what is left is written anew, and the old bytes are removed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from noria.errors import NotFound
from noria.lake.finding import Carrying
from noria.lake.rowsql import Flags
from noria.ledger.redacted import REDACTED, expected_digest, record_redacted
from noria.records import Version
from noria.workspace.forgetting.records import Holding
from noria.workspace.forgetting.stores import Asked
from noria.workspace.kept_sets import SetWriter, is_kept, kept_sets, read_kept, scratch

__all__ = ["KeptSets"]

_ROWS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True)
class KeptSets:
    """Training sets that were made from the dataset; columns are followed by their name."""

    asked: Asked

    def look(self) -> Iterator[Holding]:
        """Tell what would go."""
        for version in self._sets():
            rows, mine = self._found(version)
            if rows is not None:
                yield self._holding(version, int(mine.sum()))

    def forget(self) -> Iterator[Holding]:
        """Write what is left, then remove what was there."""
        asked, project = self.asked, self.asked.project
        for version in self._sets():
            rows, mine = self._found(version)
            if rows is None:
                continue
            if mine.any():
                sha256 = self._put(rows, ~mine)
                record_redacted(project.ledger, version, sha256, why=asked.reason, cause=asked.cause)
            yield self._holding(version, int(mine.sum()))
        self._remove_replaced()

    def _put(self, rows: pa.Table, stays: Flags) -> str:
        """Write what stays, piece by piece: a set may be larger than memory."""
        project = self.asked.project
        with scratch(project) as folder:
            writer = SetWriter(folder / "set.arrow")
            for at in range(0, max(rows.num_rows, 1), _ROWS_AT_ONCE):
                writer.write(rows.slice(at, _ROWS_AT_ONCE).filter(pa.array(stays[at : at + _ROWS_AT_ONCE])))
            writer.close()
            return project.storage.put_file(writer.path)

    def _sets(self) -> list[Version]:
        return [each for each in self.asked.descent.of("training_set") if is_kept(each)]

    def _found(self, version: Version) -> tuple[pa.Table | None, Flags]:
        none = np.zeros(0, dtype=np.bool_)
        try:
            rows = read_kept(self.asked.project, version)
        except NotFound:  # its bytes are gone already
            return None, none
        own = self.asked.trail.own
        finder = Carrying({(name,): values for name, values in own.items() if name in rows.column_names})
        return rows, finder.flags(rows)

    def _holding(self, version: Version, held: int) -> Holding:
        return Holding(
            kind="training set",
            name=version.ref,
            state="forgotten" if held else "nothing",
            held=held,
            versions=(version.ref,) if held else (),
            told="features of other rows that counted the subject's stay as they were computed",
        )

    def _remove_replaced(self) -> None:
        """Remove the bytes of older states, also those that a killed call has left."""
        project = self.asked.project
        versions = kept_sets(project)
        named = {expected_digest(project.ledger, each) for each in versions}
        for version in versions:
            for event in project.ledger.list_events(verb=REDACTED, subject=version.name):
                if event.payload["version"] == version.id and event.payload["old"] not in named:
                    project.storage.remove(event.payload["old"])
