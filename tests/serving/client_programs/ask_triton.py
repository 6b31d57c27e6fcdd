# mypy: ignore-errors
"""tritonclient[http] asks each model in each way that it has. Knows nothing of noria."""

import numpy as np
from asking import run_all, told_models
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


def arrays(columns):
    dtypes = {"FP64": np.float64, "BYTES": np.object_}
    return {name: (kind, np.array(values, dtype=dtypes[kind])) for name, (kind, values) in columns.items()}


def inputs_of(model, *, binary):
    made = []
    for name, (kind, values) in arrays(model["columns"]).items():
        made.append(InferInput(name, values.shape, kind))
        made[-1].set_data_from_numpy(values, binary_data=binary)
    return made


def outputs_of(answer, model):
    return {name: answer.as_numpy(name) for name in model["outputs"]}


def checks_of(model):
    client = InferenceServerClient(model["address"])
    name = model["name"]

    def infer(*, binary=True, outputs=None, **options):
        answer = client.infer(name, inputs_of(model, binary=binary), outputs=outputs, **options)
        return outputs_of(answer, model)

    def as_matrix():
        matrix = np.column_stack([values for _, values in arrays(model["columns"]).values()])
        tensor = InferInput("rows", matrix.shape, "FP64")
        tensor.set_data_from_numpy(matrix)
        return outputs_of(client.infer(name, [tensor]), model)

    def echoed():
        answer = client.infer(name, inputs_of(model, binary=True), request_id="asked-1").get_response()
        return {key: answer.get(key) for key in ("id", "model_name", "model_version")}

    def refused():
        tensor = InferInput("nothing-like-it", [2], "FP64")
        tensor.set_data_from_numpy(np.zeros(2))
        try:
            client.infer(name, [tensor])
        except InferenceServerException as err:
            return {"status": err.status(), "message": err.message()}
        return {"status": "200", "message": ""}

    def unknown():
        try:
            client.get_model_metadata("nobody")
        except InferenceServerException as err:
            return {"status": err.status(), "message": err.message()}
        return {"status": "200", "message": ""}

    both = [
        InferRequestedOutput(each, binary_data=number % 2 == 0)
        for number, each in enumerate(model["outputs"])
    ]
    checks = {
        "live": client.is_server_live,
        "ready": client.is_server_ready,
        "model_ready": lambda: client.is_model_ready(name),
        "version_ready": lambda: client.is_model_ready(name, "1"),
        "server": client.get_server_metadata,
        "metadata": lambda: client.get_model_metadata(name),
        "index": client.get_model_repository_index,
        "load": lambda: client.load_model(name),
        "binary": infer,
        "json": lambda: infer(
            binary=False, outputs=[InferRequestedOutput(each, binary_data=False) for each in model["outputs"]]
        ),
        "json_in": lambda: infer(binary=False),
        "chosen": lambda: infer(outputs=both),
        "pinned": lambda: infer(model_version="1"),
        "gzip": lambda: infer(request_compression_algorithm="gzip", response_compression_algorithm="gzip"),
        "deflate": lambda: infer(
            request_compression_algorithm="deflate", response_compression_algorithm="deflate"
        ),
        "echoed": echoed,
        "refused": refused,
        "unknown": unknown,
    }
    if all(kind == "FP64" for kind, _ in model["columns"].values()):
        checks["matrix"] = as_matrix
    checks["unload"] = lambda: client.unload_model(name)
    checks["loaded_again"] = lambda: (client.load_model(name), infer())[1]
    return {f"{name}/{check}": run for check, run in checks.items()}


run_all({name: check for model in told_models() for name, check in checks_of(model).items()})
