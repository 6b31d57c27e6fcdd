"""A project's verbs about contracts: what was rejected, what is blocked, repairs, proposals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.errors import ConfigError
from noria.lake.blocked import find_blocked
from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    import pyarrow as pa

    from noria.lake.blocked import BlockedDataset
    from noria.lake.declarations import ArrowFrame
    from noria.workspace.repairing import Repaired

__all__ = ["Contracts"]

_LEASE_S = 900.0  # longer than a repair takes; a dead holder's lease is free at once


class Contracts(Opened):
    """The part of `noria.workspace.project.Project` that is about contracts."""

    def rejected(
        self, name: str, *, batch: int | None = None, reason: str | None = None, settled: bool = False
    ) -> pa.Table:
        """Give the rows of a dataset that were set aside, the oldest batch first.

        Parameters
        ----------
        batch
            Only those that came with this batch.
        reason
            Only those whose reason contains this text.
        settled
            Those too that have landed since, through a repair.

        Returns
        -------
        pyarrow.Table
            `app`, `batch`, `row` and `digest` name a row by where it was first seen; `reason` (as of the last
            time), `payload` (the row as JSON, as it came), `rejected_at`, `settled_at` (null: open),
            `sightings` (with how many batches the same content came), `last_seen_at`.

        Raises
        ------
        NotFound
            If the project declares no such dataset.
        """
        from noria.workspace.repairing import list_rejected

        self.declarations.dataset(name)
        return list_rejected(self.lake, name, batch=batch, reason=reason, settled=settled)

    def repair(
        self,
        name: str,
        *,
        batch: int | None = None,
        reason: str | None = None,
        values: Mapping[str, str] | None = None,
        edited: str | Path | None = None,
        using: Callable[[Any], ArrowFrame] | None = None,
        cause: str | None = None,
        at: datetime | None = None,
    ) -> Repaired:
        """Ingest those rejected rows that hold now: the contract was changed, or the rows are.

        Each lands exactly once, whatever is killed and repeated. What still breaks the contract stays open,
        and so does a row whose key has come since: a repair replaces nothing. Rules about a batch as a whole
        are not asked again.

        Parameters
        ----------
        batch, reason
            Only rows of this batch; only those whose reason contains this text.
        values
            Column -> SQL over the row that gives its value.
        edited
            A file of JSON lines, as `noria dataset rejected --output` writes it, with changed payloads: only
            the rows that it names.
        using
            Gives the rows as they should be; by default the declaration's `repair`. It is asked after
            `values`, and not about edited rows.
        cause
            The event that led to it.
        at
            The project's instant, by default the clock's.

        Raises
        ------
        NotFound
            If there is no such dataset or column.
        SourceError
            If a line of the edited file is no open row.
        ConfigError
            If a value cannot be computed, or the function does not give each row back.
        LeaseHeld
            If another process repairs this dataset right now.
        """
        from noria.workspace.repairing import list_rejected, read_edited, repair_rows

        dataset = self.declarations.dataset(name)
        if edited is not None and (values or using):
            raise ConfigError(
                "rows come from an edited file, or are changed by values or a function; choose one"
            )
        lease = self.ledger.acquire_lease(f"repair:{name}", ttl_s=_LEASE_S)
        try:
            rows = list_rejected(self.lake, name, batch=batch, reason=reason, settled=False)
            payloads, function = None, using or dataset.repair
            if edited is not None:
                lines = Path(edited).read_text(encoding="utf-8").splitlines()
                rows, payloads = read_edited(lines, rows, file=str(edited))
                function = None
            return repair_rows(
                self.lake,
                dataset,
                rows,
                payloads=payloads,
                values=values or {},
                using=function,
                cause=cause,
                at=self.clock.now() if at is None else at,
            )
        finally:
            self.ledger.release_lease(lease)

    def blocked_datasets(self) -> dict[str, BlockedDataset]:
        """Give the declared datasets that lack a batch: it was blocked, and has not come since."""
        found = {name: find_blocked(self.ledger, name) for name in self.declarations.datasets}
        return {name: each for name, each in found.items() if each is not None}

    def release(self, name: str, *, reason: str, actor: str | None = None) -> BlockedDataset | None:
        """Go on without the batches that a dataset lacks: what reads it is built again.

        Parameters
        ----------
        reason
            Why, for the record.
        actor
            Who decides so, by default noria.

        Returns
        -------
        BlockedDataset or None
            The newest batch that is gone on without; None if there was none, and nothing is recorded.

        Raises
        ------
        NotFound
            If the project declares no such dataset.
        ConfigError
            If there is no reason.
        """
        self.declarations.dataset(name)
        if not reason.strip():
            raise ConfigError(f"{name}: to go on without a batch needs a reason, which is put on record")
        blocked = find_blocked(self.ledger, name)
        if blocked is not None:
            self.ledger.append(
                "dataset.released",
                actor=actor,
                subject=name,
                payload={"batch": blocked.batch, "source": blocked.source, "reason": reason.strip()},
                cause=blocked.event,
                at=self.clock.now(),
            )
        return blocked

    def propose_contract(
        self,
        name: str,
        rows: ArrowFrame | Iterable[str | Path] | None = None,
        *,
        key: str | tuple[str, ...] | None = None,
        event_at: str | None = None,
        known_at: str | None = None,
        time_zone: str | None = None,
    ) -> str:
        """Write the declaration of a dataset that these rows keep: Python, for a person to edit.

        Parameters
        ----------
        name
            Of the dataset.
        rows
            A frame, or files as `noria ingest` takes them; by default the table of that name. At most a
            million rows are looked at.
        key, event_at, known_at
            Columns that are known; else they are proposed.
        time_zone
            Where clocks showed the instants of files that name no offset: `Europe/Vienna`.

        Raises
        ------
        NotFound
            If there is no such table.
        SourceError
            If a file cannot be read, or there are no rows.
        """
        from noria.workspace.proposing import propose

        return propose(self, name, rows, key=key, event_at=event_at, known_at=known_at, time_zone=time_zone)
