# mypy: ignore-errors
"""The kserve SDK asks each model by its first and its second protocol. Knows nothing of noria."""

import asyncio

import numpy as np
from asking import run_all, told_models
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request_of(model, *, binary):
    inputs = []
    for name, (kind, values) in model["columns"].items():
        given = InferInput(name, [len(values)], kind, data=None if binary else values)
        if binary:
            dtype = np.float64 if kind == "FP64" else np.object_
            given.set_data_from_numpy(np.array(values, dtype=dtype), binary_data=True)
        inputs.append(given)
    return InferRequest(model["name"], inputs, request_id="kserve-1")


def rows_of(model):
    columns = [values for _, values in model["columns"].values()]
    return [dict(zip(model["columns"], row, strict=True)) for row in zip(*columns, strict=True)]


def checks_of(model):
    url, name = f"http://{model['address']}", model["name"]

    def second(ask):
        async def run():
            async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
                return await ask(client)

        return lambda: asyncio.run(run())

    def first(ask):
        async def run():
            async with InferenceRESTClient(RESTConfig(protocol="v1", retries=0)) as client:
                return await ask(client)

        return lambda: asyncio.run(run())

    async def infer(client, *, binary):
        answer = await client.infer(url, request_of(model, binary=binary), name)
        return {each.name: each.as_numpy() for each in answer.outputs if each.name in model["outputs"]}

    checks = {
        "v2_live": second(lambda client: client.is_server_live(url)),
        "v2_ready": second(lambda client: client.is_server_ready(url)),
        "v2_model_ready": second(lambda client: client.is_model_ready(url, name)),
        "v2_json": second(lambda client: infer(client, binary=False)),
        "v2_binary": second(lambda client: infer(client, binary=True)),
        "v1_live": first(lambda client: client.is_server_live(url)),
        "v1_model_ready": first(lambda client: client.is_model_ready(url, name)),
        "v1_named": first(lambda client: client.infer(url, {"instances": rows_of(model)}, name)),
        "v1_explain": first(lambda client: client.explain(url, name, {"instances": rows_of(model)})),
        "v1_lists": first(
            lambda client: client.infer(
                url, {"instances": [list(each.values()) for each in rows_of(model)]}, name
            )
        ),
    }
    return {f"{name}/{check}": run for check, run in checks.items()}


run_all({name: check for model in told_models() for name, check in checks_of(model).items()})
