"""Hold a batch against its contract, in one pass over its rows, in as many pieces as they come.

::

    with checker.begin(rules, max_rejected_share=0.01) as checking:
        for piece in pieces:
            verdict = checking.piece(piece)      # accepted and rejected rows of the piece
        outcome = checking.finish()              # findings, and why the batch is blocked, if it is

However a batch is cut into pieces, the same rows are accepted.
"""

from collections.abc import Collection, Sequence

import pyarrow as pa

from noria.checks.checking import Checking
from noria.checks.declarations import Rule
from noria.checks.evaluator import Evaluator
from noria.checks.surroundings import Surroundings
from noria.checks.verdicts import (
    REJECTED_SCHEMA,
    BatchOutcome,
    BatchVerdict,
    Finding,
    PieceVerdict,
    row_json,
)

__all__ = [
    "REJECTED_SCHEMA",
    "BatchChecker",
    "BatchOutcome",
    "BatchVerdict",
    "Checking",
    "Finding",
    "PieceVerdict",
    "Surroundings",
    "check_batch",
    "row_json",
]


class BatchChecker:
    """Checks batches with one database connection, which makes small batches cheap. Thread-safe."""

    def __init__(self) -> None:
        self._evaluator = Evaluator()

    def close(self) -> None:
        """Let go of the connection."""
        self._evaluator.close()

    def begin(
        self,
        rules: Sequence[Rule],
        *,
        max_rejected_share: float,
        surroundings: Surroundings | None = None,
        added: Collection[str] = (),
    ) -> Checking:
        """Begin to check a batch that comes in pieces.

        Parameters
        ----------
        rules
            The contract.
        max_rejected_share
            Above this share of rejected rows the whole batch is blocked.
        surroundings
            Where the batch stands; `fresh`, `references` and `row_count(against=...)` need it.
        added
            Columns that did not come with the rows: what is kept of a rejected row goes without them.

        Raises
        ------
        ConfigError
            If a rule can never be judged: SQL that is none, or `surroundings` that are not given.
        """
        return Checking(
            self._evaluator,
            rules,
            max_rejected_share=max_rejected_share,
            surroundings=surroundings,
            added=added,
        )

    def check(
        self,
        table: pa.Table,
        rules: Sequence[Rule],
        *,
        max_rejected_share: float,
        surroundings: Surroundings | None = None,
    ) -> BatchVerdict:
        """Check a batch that is there as a whole: `begin`, one piece, `finish`.

        Raises
        ------
        ConfigError
            If a rule does not fit the table: an unknown column, SQL that is none.
        """
        with self.begin(rules, max_rejected_share=max_rejected_share, surroundings=surroundings) as checking:
            piece = checking.piece(table)
            outcome = checking.finish()
        return BatchVerdict(piece.accepted, piece.rejected, outcome.findings, outcome.reasons)


def check_batch(table: pa.Table, rules: Sequence[Rule], *, max_rejected_share: float) -> BatchVerdict:
    """Check one batch; `BatchChecker.check` is the same for many.

    Examples
    --------
    >>> from noria.checks.declarations import between
    >>> verdict = check_batch(pa.table({"x": [1, 99]}), [between("x", 0, 10)], max_rejected_share=0.5)
    >>> verdict.accepted["x"].to_pylist(), verdict.rejected["payload"].to_pylist(), verdict.blocked
    ([1], ['{"x":99}'], False)
    """
    checker = BatchChecker()
    try:
        return checker.check(table, rules, max_rejected_share=max_rejected_share)
    finally:
        checker.close()
