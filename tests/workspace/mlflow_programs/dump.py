# mypy: ignore-errors
"""Tells all that a store of MLflow holds, without ids of experiments and places. Knows nothing of noria."""

import hashlib
import json
import sys
from pathlib import Path

import mlflow
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

client = MlflowClient()


def files(run, folder=None):
    for each in client.list_artifacts(run, folder):
        if each.is_dir:
            yield from files(run, each.path)
        else:
            content = Path(client.download_artifacts(run, each.path)).read_bytes()
            yield each.path, [each.file_size or 0, hashlib.sha256(content).hexdigest()]


def told(run):
    id = run.info.run_id
    found = client.get_run(id).to_dictionary()
    del found["info"]["artifact_uri"], found["info"]["experiment_id"]
    datasets = found["inputs"]["dataset_inputs"]
    datasets.sort(key=lambda each: (each["dataset"]["name"], each["dataset"]["digest"]))
    points = {
        name: sorted([repr(p.value), p.timestamp, p.step] for p in client.get_metric_history(id, name))
        for name in run.data.metrics
    }
    latest = {name: repr(value) for name, value in found["data"].pop("metrics").items()}
    return {**found, "latest": latest, "points": points, "files": dict(sorted(files(id)))}


def models(experiment):
    for each in client.search_logged_models([experiment]):
        told = {name: value or None for name, value in each.to_dictionary().items()}
        del told["artifact_location"], told["experiment_id"]
        metrics = sorted(
            [m.key, repr(m.value), m.timestamp, m.step, m.run_id, m.dataset_name, m.dataset_digest]
            for m in each.metrics or ()
        )
        paths = [path.path for path in client.list_logged_model_artifacts(each.model_id)]
        files = {path: mlflow.artifacts.load_text(f"{each.artifact_location}/{path}") for path in paths}
        yield each.model_id, {**told, "metrics": metrics, "files": files}


def runs(experiment):
    token = None
    while True:
        page = client.search_runs([experiment], run_view_type=ViewType.ALL, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


folders = {}
for each in client.search_experiments(view_type=ViewType.ALL):
    folders[each.name] = {
        "stage": each.lifecycle_stage,
        "tags": each.tags,
        "times": None if each.name == "Default" else [each.creation_time, each.last_update_time],
        "models": dict(models(each.experiment_id)),
        "runs": {run.info.run_id: told(run) for run in runs(each.experiment_id)},
    }
json.dump(folders, sys.stdout, sort_keys=True, default=vars)
