# mypy: ignore-errors
"""Tells all that the registry of a store of MLflow holds, without places. Knows nothing of noria."""

import json
import sys

from mlflow.tracking import MlflowClient

client = MlflowClient()


def told(version):
    return {
        "number": int(version.version),
        "created": version.creation_timestamp,
        "updated": version.last_updated_timestamp,
        "description": version.description or None,
        "user": version.user_id or None,
        "stage": version.current_stage,
        "source": version.source,
        "run": version.run_id or None,
        "link": version.run_link or None,
        "status": version.status,
        "message": version.status_message or None,
        "tags": version.tags,
        "aliases": sorted(version.aliases),
    }


models = {}
for model in client.search_registered_models(max_results=1000):
    mark = '"' if "'" in model.name else "'"
    versions = client.search_model_versions(f"name = {mark}{model.name}{mark}")
    models[model.name] = {
        "created": model.creation_timestamp,
        "updated": model.last_updated_timestamp,
        "description": model.description or None,
        "tags": model.tags,
        "aliases": {alias: int(number) for alias, number in model.aliases.items()},
        "latest": sorted([v.current_stage, int(v.version)] for v in model.latest_versions),
        "versions": {
            each.version: told(client.get_model_version(model.name, each.version)) for each in versions
        },
    }
json.dump(models, sys.stdout, sort_keys=True)
