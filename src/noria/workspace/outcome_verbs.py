"""The project's verb that records what became of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from noria.errors import ConfigError
from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from noria.workspace.project import Project
    from noria.workspace.recording import Recorded

__all__ = ["OutcomeVerbs"]

_NOT_GIVEN: Any = object()


class OutcomeVerbs(Opened):
    """Outcomes of predictions."""

    def record(
        self,
        prediction_id: Any,
        outcome: Any = _NOT_GIVEN,
        *,
        known_at: datetime | str | Sequence[datetime | str] | None = None,
        deployment: str | None = None,
    ) -> Recorded:
        """Record what became of predictions, and return once it is in the table `outcomes`.

        An outcome that is recorded already is not recorded again; a correction is another one that became
        known later. Each call commits to the lake: give many outcomes at once. A running server takes them
        by `POST /outcomes` as well.

        Parameters
        ----------
        prediction_id
            The id that a prediction was answered under; a sequence of them; or a frame, a `Path` of a file or
            several, with columns `prediction_id`, `outcome` and, if it is there, `known_at`.
        outcome
            A number, such as 0 or 1; a text for a label; None where it is known that none will come.
        known_at
            Since when it is known. Default: now.
        deployment
            Whose prediction it is, as `NAME@ENVIRONMENT`. Default: whose it was; needed where nobody is known
            to have answered it and there are several, or where several have answered that id.

        Returns
        -------
        Recorded
            How many are recorded, how many were before, and of how many the prediction is not known.

        Raises
        ------
        ConfigError
            If something is no outcome, or nothing tells whose it is.
        SourceError
            If a frame or file lacks a column, or cannot be read; nothing is recorded then.
        Conflict
            If another outcome is recorded of that prediction and instant.

        Examples
        --------
        ::

            project.record("order-4711", 1)
            project.record(["order-1", "order-2"], [0, 1], known_at="2026-07-01T12:00Z")
            project.record(frame, deployment="late@production")
        """
        from noria.workspace.recording import outcomes_of_rows, outcomes_of_values, record_outcomes

        if outcome is _NOT_GIVEN:
            if isinstance(prediction_id, str):
                raise ConfigError(
                    f"what became of {prediction_id!r}? Give its outcome, or None if none will come"
                )
            if known_at is not None:
                raise ConfigError("with a frame or a file `known_at` is a column of it")
            given = outcomes_of_rows(prediction_id, folder=None)
        else:
            given = outcomes_of_values(prediction_id, outcome, known_at)
        return record_outcomes(cast("Project", self), given, deployment=deployment)
