"""MLflow's paths, found by a table: a request costs little more than what it asks for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from noria.api.mlflow.errors import ErrorCode, MlflowFault, fault_of, refusal
from noria.api.mlflow.requests import MAX_BODY_BYTES, decoded, is_json

__all__ = ["Endpoint", "MlflowApplication", "RawEndpoint"]

_PREFIXES = ("/api/", "/ajax-api/")
_THREADS = 16
_JSON = {"content-type": "application/json"}
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One remote procedure: fields of a request in, an object of JSON out. It may wait for the database."""

    methods: tuple[str, ...]
    path: str  # after "/api/2.0/mlflow" or "/api/3.0/mlflow"; a part in braces is a field
    fields: type[msgspec.Struct]
    perform: Callable[[Any], Mapping[str, Any]]
    most_bytes: int = MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class RawEndpoint:
    """A path whose bodies are no JSON."""

    methods: tuple[str, ...]
    path: str  # all of it; it ends with "/{path}" where the rest is a name
    answer: Callable[[Request], Awaitable[Response]]


class MlflowApplication:
    """Answers what MLflow's clients ask for, and passes on all else.

    Parameters
    ----------
    endpoints
        The remote procedures.
    raw
        Paths whose bodies are no JSON.
    otherwise
        Answers all other paths.
    """

    def __init__(
        self, endpoints: Iterable[Endpoint], raw: Iterable[RawEndpoint], *, otherwise: ASGIApp
    ) -> None:
        self._otherwise = otherwise
        self._fixed: dict[str, dict[str, Endpoint]] = {}
        self._named: list[tuple[list[str], dict[str, Endpoint]]] = []
        for each in endpoints:
            if "{" in each.path:
                self._name(each)
            else:
                self._fixed.setdefault(each.path, {}).update(dict.fromkeys(each.methods, each))
        self._raw = list(raw)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="noria-mlflow")

    def paths(self) -> list[tuple[str, str]]:
        """Give the methods and paths of all remote procedures."""
        named = {"/".join(parts): methods for parts, methods in self._named}
        every = {**self._fixed, **named}
        return [(method, f"/api/2.0/mlflow{path}") for path, methods in every.items() for method in methods]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._otherwise(scope, receive, send)
            return
        try:
            raw = self._find_raw(scope)
            rest = _after_prefix(scope["path"])
            if raw is not None:
                response = await raw.answer(Request(scope, receive))
            elif rest is not None:
                response = Response(await self._performed(rest, scope, receive), headers=_JSON)
            else:
                response = None
        except Exception as err:  # noqa: BLE001 - the outermost of a request: it is answered and logged
            response = refusal(fault_of(err))
        await (self._otherwise if response is None else response)(scope, receive, send)

    async def _performed(self, rest: str, scope: Scope, receive: Receive) -> bytes:
        method = scope["method"]
        endpoint, given = self._find(rest, method)
        body = await _read(scope, receive, endpoint.most_bytes)
        query = scope["query_string"] if method == "GET" else b""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _perform, endpoint, body, query, given)

    def _name(self, endpoint: Endpoint) -> None:
        parts = endpoint.path.split("/")
        for known, methods in self._named:
            if known == parts:
                methods.update(dict.fromkeys(endpoint.methods, endpoint))
                return
        self._named.append((parts, dict.fromkeys(endpoint.methods, endpoint)))

    def _find(self, rest: str, method: str) -> tuple[Endpoint, dict[str, str]]:
        methods, given = self._fixed.get(rest), {}
        if methods is None:
            parts = rest.split("/")
            for known, of_known in self._named:
                found = _fits(known, parts)
                if found is not None:
                    methods, given = of_known, found
                    break
        if methods is None:
            told = f"there is no {rest!r} here; what is answered is in the guide of noria"
            raise MlflowFault(ErrorCode.ENDPOINT_NOT_FOUND, told)
        if method not in methods:
            told = f"{method} {rest} is not answered; {', '.join(sorted(methods))} is"
            raise MlflowFault(ErrorCode.ENDPOINT_NOT_FOUND, told)
        return methods[method], given

    def _find_raw(self, scope: Scope) -> RawEndpoint | None:
        path, method = scope["path"], scope["method"]
        for each in self._raw:
            if method not in each.methods:
                continue
            beginning, has_name, _ = each.path.partition("{path}")
            if has_name and path.startswith(beginning):
                scope["path_params"] = {"path": path[len(beginning) :]}
                return each
            if path == each.path:
                return each
        return None


def _after_prefix(path: str) -> str | None:
    """Give what follows `/api/2.0/mlflow`, in any of its forms; None for another path."""
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            version, _, rest = path[len(prefix) :].partition("/")
            if version in ("2.0", "3.0") and rest.startswith("mlflow/"):
                return rest[len("mlflow") :]
            return rest if version in ("2.0", "3.0") else None
    return None


def _fits(known: list[str], parts: list[str]) -> dict[str, str] | None:
    """Give the fields that a path holds, None if it is another."""
    if len(known) != len(parts):
        return None
    given = {}
    for pattern, part in zip(known, parts, strict=True):
        if pattern.startswith("{"):
            given[pattern[1:-1]] = part
        elif pattern != part:
            return None
    return given


async def _read(scope: Scope, receive: Receive, most: int) -> bytes:
    """Read a body, which is JSON if there is one."""
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body", False):
        pieces, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise MlflowFault.invalid("the client went away in the middle of its request")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > most:
                break
        body = b"".join(pieces)
    if len(body) > most:
        raise MlflowFault.invalid(f"the body is larger than {most} bytes; send it in several requests")
    if scope["method"] != "GET" or body:
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        may_be_none = scope["method"] in {"GET", "DELETE"}  # all that such a request says may be in its path
        if not is_json(kind.decode("latin-1")) and (body or not may_be_none):
            raise MlflowFault.invalid(
                f"Bad Request. Content-Type must be 'application/json', found {kind.decode('latin-1')!r}"
            )
    return body if isinstance(body, bytes) else bytes(body)


def _perform(endpoint: Endpoint, body: bytes, query: bytes, given: dict[str, str]) -> bytes:
    fields = decoded(endpoint.fields, body, query)
    if given:
        if any("\0" in each for each in given.values()):
            raise MlflowFault.invalid("the path holds the character NUL, which no database keeps")
        fields = msgspec.structs.replace(fields, **given)
    return _encode(endpoint.perform(fields))
