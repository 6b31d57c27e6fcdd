"""MLflow's paths, found by a table: a request costs little more than what it asks for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from noria.api.mlflow.errors import ErrorCode, MlflowFault, fault_of, refusal
from noria.api.mlflow.held_bodies import Bodies
from noria.api.mlflow.requests import MAX_BODY_BYTES, decoded
from noria.api.mlflow.together import Together

__all__ = ["Endpoint", "MlflowApplication", "RawEndpoint", "after_prefix"]

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
    perform_all: Callable[[Sequence[Any]], Sequence[Mapping[str, Any] | Exception]] | None = None
    """Does likewise for requests that wait at once, on nobody's behalf: of what makes no events."""


@dataclass(frozen=True, slots=True)
class RawEndpoint:
    """A path whose bodies are no JSON."""

    methods: tuple[str, ...]
    path: str  # all of it; "{path}" stands for a name
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
        self._raw: dict[str, dict[str, RawEndpoint]] = {}
        self._raw_named: list[tuple[str, str, RawEndpoint]] = []
        for one in raw:
            beginning, has_name, end = one.path.partition("{path}")
            if has_name:
                self._raw_named.append((beginning, end, one))
            else:
                self._raw.setdefault(one.path, {}).update(dict.fromkeys(one.methods, one))
        self._together = {
            each: Together(partial(_perform_all, each))
            for methods in self._fixed.values()
            for each in methods.values()
            if each.perform_all is not None
        }
        self._bodies = Bodies()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="noria-mlflow")

    def paths(self) -> list[tuple[str, str]]:
        """Give the methods and paths of all remote procedures."""
        named = {"/".join(parts): methods for parts, methods in self._named}
        every = {**self._fixed, **named}
        return [(method, f"/api/2.0/mlflow{path}") for path, methods in every.items() for method in methods]

    def raw_paths(self) -> list[tuple[str, str]]:
        """Give the methods and paths of all else that is answered here, with `{path}` for a name."""
        every = [one for methods in self._raw.values() for one in methods.values()]
        every += [one for _, _, one in self._raw_named]
        return sorted({(method, one.path) for one in every for method in one.methods})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._otherwise(scope, receive, send)
            return
        try:
            raw = self._find_raw(scope)
            rest = after_prefix(scope["path"])
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
        query = scope["query_string"] if method == "GET" else b""
        loop = asyncio.get_running_loop()
        together = self._together.get(endpoint)
        held = self._bodies.begin()
        try:
            body = await held.read(scope, receive, endpoint.most_bytes)
            if together is not None:
                answer: bytes = await together.ask((body, query, given))
                return answer
            perform = copy_context().run  # on whose behalf goes with it
            return await loop.run_in_executor(self._threads, perform, _perform, endpoint, body, query, given)
        finally:
            held.end()

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
        fixed = self._raw.get(path)
        if fixed is not None:
            return fixed.get(method)
        for beginning, end, each in self._raw_named:
            if path.startswith(beginning) and path.endswith(end) and method in each.methods:
                scope["path_params"] = {"path": path[len(beginning) : len(path) - len(end)]}
                return each
        return None


def after_prefix(path: str) -> str | None:
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


_Request = tuple[bytes, bytes, dict[str, str]]  # its body, query and what its path gives


def _perform_all(endpoint: Endpoint, requests: Sequence[_Request]) -> list[bytes | Exception]:
    assert endpoint.perform_all is not None
    answers: list[bytes | Exception] = [b""] * len(requests)
    asked = {}
    for place, each in enumerate(requests):
        try:
            asked[place] = _fields(endpoint, *each)
        except MlflowFault as fault:
            answers[place] = fault
    for place, found in zip(asked, endpoint.perform_all([*asked.values()]), strict=True):
        answers[place] = found if isinstance(found, Exception) else _encode(found)
    return answers


def _perform(endpoint: Endpoint, body: bytes, query: bytes, given: dict[str, str]) -> bytes:
    return _encode(endpoint.perform(_fields(endpoint, body, query, given)))


def _fields(endpoint: Endpoint, body: bytes, query: bytes, given: dict[str, str]) -> Any:
    fields = decoded(endpoint.fields, body, query)
    if given:
        if any("\0" in each for each in given.values()):
            raise MlflowFault.invalid("the path holds the character NUL, which no database keeps")
        return msgspec.structs.replace(fields, **given)
    return fields
