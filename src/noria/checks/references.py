"""Rows that name rows of another dataset: which of them name none."""

import numpy as np
import pyarrow as pa

from noria.checks.declarations import Rule
from noria.checks.evaluator import Evaluator
from noria.checks.quoting import quoted
from noria.checks.sql import listed
from noria.checks.surroundings import Surroundings
from noria.checks.verdicts import Flags

__all__ = ["References"]

_KEPT = 2_000_000  # keys that stay known from piece to piece
_ROW = "__row"


class References:
    """One rule `references`, over the pieces of one batch. Keys that were found are not looked up again."""

    def __init__(self, rule: Rule, evaluator: Evaluator, surroundings: Surroundings) -> None:
        self._rule = rule
        self._evaluator = evaluator
        self._surroundings = surroundings
        self._known: pa.Table | None = None
        self._present = " and ".join(f"batch.{quoted(each)} is not null" for each in rule.columns)
        pairs = zip(rule.columns, rule.others, strict=True)
        same = " and ".join(f"known.{quoted(there)} = batch.{quoted(here)}" for here, there in pairs)
        self._unknown = f"not exists (select 1 from known where {same})"

    def failing(self, table: pa.Table) -> Flags:
        """Say which rows name a key that is not there. Raises `duckdb.Error` if types do not go together."""
        rule = self._rule
        flags = np.zeros(table.num_rows, dtype=bool)
        keys = table.select(list(rule.columns))
        new = self._ask(keys, f"select distinct {listed(rule.columns)} from batch")
        if not new.num_rows:
            return flags
        assert rule.dataset is not None
        wanted = new.rename_columns(list(rule.others))
        there = self._surroundings.find_keys(rule.dataset, rule.others, wanted)
        pairs = " and ".join(f"wanted.{quoted(each)} = there.{quoted(each)}" for each in rule.others)
        chosen = f"select distinct {', '.join(f'there.{quoted(each)}' for each in rule.others)}"
        found = self._evaluator.query(
            f"{chosen} from there semi join wanted on {pairs}", {"there": there, "wanted": wanted}
        )
        self._known = found if self._known is None else pa.concat_tables([self._known, found])
        if found.num_rows < new.num_rows:
            numbered = keys.append_column(_ROW, pa.array(np.arange(table.num_rows)))
            flags[np.asarray(self._ask(numbered, f"select {_ROW} from batch")[_ROW])] = True
        if self._known.num_rows > _KEPT:
            self._known = None
        return flags

    def _ask(self, keys: pa.Table, select: str) -> pa.Table:
        if self._known is None:
            return self._evaluator.query(f"{select} where {self._present}", {"batch": keys})
        return self._evaluator.query(
            f"{select} where {self._present} and {self._unknown}", {"batch": keys, "known": self._known}
        )
