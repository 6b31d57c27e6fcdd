"""What clients of MLflow 2 tell of models that they put among a run's files: a list in a tag of the run."""

from collections.abc import Mapping
from typing import Any

import msgspec

from noria.database.store import Database
from noria.errors import Conflict
from noria.records import RunId
from noria.tracking.store import TrackingStore

__all__ = ["HISTORY_TAG", "ModelHistory"]

HISTORY_TAG = "mlflow.log-model.history"
_KEPT = ("run_id", "utc_time_created", "artifact_path", "model_uuid")


class ModelHistory:
    """The lists of a project's runs. Safe to use from many threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database, self._store = database, TrackingStore(database)

    def append(self, run: RunId, told: Mapping[str, Any]) -> None:
        """Add a model to a run's list: where it is, when it was made, and its flavors without their settings.

        Raises
        ------
        NotFound
            If there is no such run in an experiment.
        Conflict
            If it is deleted, or its tag is no list.
        """
        flavors = told.get("flavors")
        kept: dict[str, Any] = {name: told[name] for name in _KEPT if name in told}
        kept["flavors"] = {
            name: {key: value for key, value in each.items() if key != "config"}
            if isinstance(each, Mapping)
            else each
            for name, each in (flavors.items() if isinstance(flavors, Mapping) else ())
        }
        with self._database.write():
            text = self._store.list_tags(run).get(HISTORY_TAG, "[]")
            try:
                known = msgspec.json.decode(text, type=list[Any])
            except msgspec.MsgspecError as err:
                raise Conflict(
                    f"the tag {HISTORY_TAG} of run {run} is no JSON list, and takes no model; delete the tag"
                ) from err
            value = msgspec.json.encode([*known, kept]).decode()
            self._store.log(run, tags={HISTORY_TAG: value}, is_open=True)
