"""A small client for a serving worker: one kept connection, JSON, safe to retry because rows carry ids."""

import http.client
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import orjson

from noria.clock import to_micros
from noria.errors import Conflict, DeploymentError
from noria.records import new_id

__all__ = ["Answers", "InferError", "ServingClient"]

_BACKOFF_S = 0.02
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_BROKEN = (ConnectionError, http.client.HTTPException, TimeoutError)


class InferError(DeploymentError):
    """A worker refused a request; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answers:
    """What a request was answered, one entry per row in its order."""

    ids: list[str]
    scores: list[float | None]  # None where the model gave no number
    releases: list[str]
    versions: list[int]
    route: int  # number of the route that answered
    logged: int  # rows that had been answered before


class ServingClient:
    """Asks one worker, over one connection; one thread uses it at a time.

    Parameters
    ----------
    host, port
        Where the worker listens.
    timeout_s
        How long one answer may take.
    retry_s
        How long to try again while no connection is to be had, for example while a worker is restarted.
    certificate
        A PEM file with the server's certificate, or with that of who vouches for it; None: plain HTTP.
    key
        By which to ask, where the server wants one.

    Examples
    --------
    ::

        with ServingClient("127.0.0.1", 8080) as client:
            answers = client.infer("late_arrival", {"carrier": ["UA"], "distance": [719.0]}, ids=["UA-1"])
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float = 30.0,
        retry_s: float = 10.0,
        certificate: Path | None = None,
        key: str = "",
    ) -> None:
        self.host, self.port = host, port
        self._trust = None if certificate is None else _trust(certificate)
        self._timeout_s, self._retry_s = timeout_s, retry_s
        self._headers = {**_HEADERS, "X-Api-Key": key} if key else _HEADERS
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def infer(
        self,
        model: str,
        columns: Mapping[str, Sequence[object]],
        *,
        ids: Sequence[str] | None = None,
        at: datetime | int | None = None,
        version: int | None = None,
    ) -> Answers:
        """Get the scores of rows.

        Parameters
        ----------
        model
            A model's name, or the deployment's.
        columns
            Request columns by name, all of one length: strings, numbers, None or NaN where missing.
        ids
            Prediction id per row. Without, the rows get new ones.
        at
            The rows' instant (aware, or microseconds since 1970), where the environment's clock is "replay".
        version
            Ask this version of the route only.

        Raises
        ------
        Conflict
            If an id was answered before for other input.
        InferError
            If the worker refuses the request for another reason.
        DeploymentError
            If no worker is to be reached.
        """
        inputs = [_tensor(name, values) for name, values in columns.items()]
        request: dict[str, object] = {"inputs": inputs}
        if ids is None:
            request["id"] = new_id()  # so that a retry asks for the same predictions
        else:
            inputs.append(
                {"name": "prediction_id", "datatype": "BYTES", "shape": [len(ids)], "data": list(ids)}
            )
        if at is not None:
            request["parameters"] = {"at": at if isinstance(at, int) else to_micros(at)}
        path = f"/v2/models/{quote(model, safe='')}"
        path += "/infer" if version is None else f"/versions/{version}/infer"
        answer = self.post(path, orjson.dumps(request))
        outputs = {each["name"]: each["data"] for each in answer["outputs"]}
        return Answers(
            ids=outputs["prediction_id"],
            scores=outputs["score"],
            releases=outputs["release"],
            versions=outputs["version"],
            route=answer["parameters"]["route"],
            logged=answer["parameters"]["logged"],
        )

    def get(self, path: str) -> Any:
        """Get a JSON document. Raises as `infer`."""
        return self._request("GET", path, None)

    def post(self, path: str, body: bytes = b"") -> Any:
        """Post a JSON document and get one. Raises as `infer`."""
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: bytes | None) -> Any:
        deadline = time.monotonic() + self._retry_s
        pause_s = _BACKOFF_S
        while True:
            try:
                connection = self._connection or self._connect()
                connection.request(method, path, body, self._headers)
                response = connection.getresponse()
                status, data = response.status, response.read()
                break
            except _BROKEN as err:
                self.close()
                if time.monotonic() + pause_s > deadline:
                    raise DeploymentError(
                        f"no worker answers at {self.host}:{self.port} ({err}); "
                        "`noria status` shows whether the deployment is up"
                    ) from err
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.5)
        return _read(status, data)

    def _connect(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._trust is None:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=self._timeout_s)
        else:
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=self._timeout_s, context=self._trust
            )
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        return connection


def _trust(certificate: Path) -> ssl.SSLContext:
    """Trust this certificate, by whatever name its server is reached."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _tensor(name: str, values: Sequence[object]) -> dict[str, object]:
    data = values.tolist() if hasattr(values, "tolist") else list(values)
    types = set(map(type, data)) - {type(None)}
    if str in types:
        datatype = "BYTES"
    elif types == {int}:
        datatype = "INT64"
    elif types == {bool}:
        datatype = "BOOL"
    else:
        datatype = "FP64"
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def _read(status: int, data: bytes) -> Any:
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError as err:
        raise InferError(status, f"status {status}, and no JSON: is it a worker that listens there?") from err
    if status < 300:
        return answer
    message = answer.get("error", f"status {status}")
    raise Conflict(message) if status == 409 else InferError(status, message)
