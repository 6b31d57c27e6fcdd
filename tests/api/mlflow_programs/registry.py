# mypy: ignore-errors
"""What a user does with registered models, by MLflow's client alone."""

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LogisticRegression

client = MlflowClient()
rows = np.array([[0.0], [1.0], [2.0], [3.0]])
model = LogisticRegression().fit(rows, [0, 0, 1, 1])


def code_of(work):
    try:
        work()
    except MlflowException as err:
        return err.error_code
    raise AssertionError("it passed")


made = client.create_registered_model("flights", tags={"team": "ops"}, description="late or not")
assert (made.name, made.description, made.tags) == ("flights", "late or not", {"team": "ops"})
assert code_of(lambda: client.create_registered_model("flights")) == "RESOURCE_ALREADY_EXISTS"
assert code_of(lambda: client.get_registered_model("trains")) == "RESOURCE_DOES_NOT_EXIST"
assert code_of(lambda: client.create_registered_model("a/b")) == "INVALID_PARAMETER_VALUE"

with mlflow.start_run() as run:
    mlflow.log_text("flavors: {}", "plain/MLmodel")
    logged = mlflow.sklearn.log_model(model, name="clf")
id = run.info.run_id

plain = client.create_model_version(
    "flights", f"runs:/{id}/plain", run_id=id, tags={"lang": "en"}, description="first"
)
assert (plain.version, plain.status, plain.current_stage) == ("1", "READY", "None")
assert (plain.run_id, plain.source, plain.tags) == (id, f"runs:/{id}/plain", {"lang": "en"})
for source in ("/etc", "runs:/other/plain", f"mlflow-artifacts:/0/{id}/artifacts/../x", "models:/m-x"):
    refused = code_of(lambda: client.create_model_version("flights", source, run_id=id))  # noqa: B023
    assert refused == "INVALID_PARAMETER_VALUE", source

second = mlflow.register_model(f"runs:/{id}/clf", "flights")
third = mlflow.register_model(logged.model_uri, "flights", tags={"lang": "de"})
assert (second.version, third.version) == ("2", "3")
assert third.source == f"models:/{logged.model_id}"

client.set_registered_model_alias("flights", "champion", "3")
assert client.get_model_version_by_alias("flights", "champion").version == "3"
assert client.get_model_version("flights", "3").aliases == ["champion"]
assert code_of(lambda: client.get_model_version_by_alias("flights", "no")) == "INVALID_PARAMETER_VALUE"
named = [f"models:/flights{each}" for each in ("/2", "@champion", "/latest")]
for uri in (*named, logged.model_uri):
    assert mlflow.pyfunc.load_model(uri).predict(rows).tolist() == [0, 0, 1, 1], uri
    assert mlflow.sklearn.load_model(uri).predict(rows).tolist() == [0, 0, 1, 1], uri

client.transition_model_version_stage("flights", "2", "production")
client.transition_model_version_stage("flights", "3", "Production", archive_existing_versions=True)
assert client.get_model_version("flights", "2").current_stage == "Archived"
assert [each.version for each in client.get_latest_versions("flights", ["Production"])] == ["3"]
stages = {each.current_stage: each.version for each in client.get_latest_versions("flights")}
assert stages == {"None": "1", "Production": "3", "Archived": "2"}
assert mlflow.sklearn.load_model("models:/flights/Production").predict(rows).tolist() == [0, 0, 1, 1]

client.set_registered_model_tag("flights", "team", "data")
client.delete_registered_model_tag("flights", "never")
client.set_model_version_tag("flights", "1", "lang", "fr")
client.set_model_version_tag("flights", "1", "x", "y")
client.delete_model_version_tag("flights", "1", "x")
assert client.get_model_version("flights", "1").tags == {"lang": "fr"}
client.update_registered_model("flights", "better")
client.update_model_version("flights", "1", "older")
assert client.get_model_version("flights", "1").description == "older"

client.create_registered_model("trains")
assert [each.name for each in client.search_registered_models()] == ["flights", "trains"]
assert [each.name for each in client.search_registered_models("name LIKE 'fl%'")] == ["flights"]
found = client.search_registered_models(order_by=["name DESC"])
assert [each.name for each in found] == ["trains", "flights"]
page = client.search_registered_models(max_results=1)
assert client.search_registered_models(max_results=1, page_token=page.token)[0].name == "trains"
found = client.search_model_versions("name='flights'", order_by=["version_number"])
assert [each.version for each in found] == ["1", "2", "3"]
assert {each.version for each in client.search_model_versions(f"run_id = '{id}'")} == {"1", "2", "3"}
assert [each.version for each in client.search_model_versions("tags.lang = 'fr'")] == ["1"]

copied = client.copy_model_version("models:/flights@champion", "copied")
assert mlflow.sklearn.load_model(f"models:/copied/{copied.version}").predict(rows).tolist() == [0, 0, 1, 1]

client.rename_registered_model("flights", "planes")
assert client.get_registered_model("planes").aliases == {"champion": "3"}
client.delete_registered_model_alias("planes", "champion")
client.delete_model_version("planes", "3")
assert code_of(lambda: client.get_model_version("planes", "3")) == "RESOURCE_DOES_NOT_EXIST"
client.delete_registered_model("planes")
assert code_of(lambda: client.get_registered_model("planes")) == "RESOURCE_DOES_NOT_EXIST"
client.create_registered_model("planes")
assert client.create_model_version("planes", "s3://bucket/model").version == "1"
print(id)
