"""Asks a server all the time, over kept connections, until standard input ends.

`python load_client.py NAME PORT FILE CONNECTIONS PAUSE DEPLOYMENT...`.

Each request has an id of its own and is asked again, over a new connection, where its connection was cut.
What came of it goes to the file: a line of JSON, a list in the order of `Line`.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE_S = 20.0
REPEATS = 0.02  # the share of requests that are asked a second time, once they are answered
DRAWN = random.Random(1)
ROWS = [[round(DRAWN.gauss(0, 1), 3) for _ in range(3)] for _ in range(64)]


class Line(NamedTuple):
    """What came of one request."""

    id: str
    deployment: str
    row: int
    sent: float  # seconds since 1970, the first time
    received: float
    status: int  # 0: no answer at all
    took_s: float  # of the attempt that was answered
    cuts: list[float]  # when its connection was cut
    version: str = ""
    route: int = 0
    score: float = 0.0
    told: str = ""  # where it was refused: why; empty where no error was told


def encoded(deployment: str, row: int, prediction_id: str) -> bytes:
    """Write a request as it goes over the wire."""
    inputs: list[dict[str, Any]] = [
        {"name": name, "datatype": "FP64", "shape": [1], "data": [value]}
        for name, value in zip("abc", ROWS[row], strict=True)
    ]
    inputs.append({"name": "prediction_id", "datatype": "BYTES", "shape": [1], "data": [prediction_id]})
    body = json.dumps({"inputs": inputs}).encode()
    head = f"POST /v2/models/{deployment}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class Connection:
    """A connection that is made anew when it has to be."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Give status, head and body of the answer. Raises `OSError` or `EOFError` where it is cut."""
        if self._ends is None:
            self._ends = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._ends
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        start = head.index(b"content-length: ") + 16
        body = await reader.readexactly(int(head[start : head.index(b"\r", start)]))
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), head, body

    def close(self) -> None:
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None


async def answer_of(
    connection: Connection, deployment: str, row: int, prediction_id: str, *, until: asyncio.Event
) -> Line:
    """Ask until there is an answer."""
    request, sent, cuts = encoded(deployment, row, prediction_id), time.time(), list[float]()
    while time.time() - sent < PATIENCE_S:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, head, body = await connection.ask(request)
        except (OSError, EOFError):
            connection.close()
            cuts.append(time.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await until.wait()
            continue
        received, took_s = time.time(), time.perf_counter() - started
        found = json.loads(body)
        if status != 200:
            told = found.get("error", "") if status != 503 or b"retry-after: " in head else ""
            return Line(prediction_id, deployment, row, sent, received, status, took_s, cuts, told=told)
        outputs = {each["name"]: each["data"][0] for each in found["outputs"]}
        assert outputs["prediction_id"] == prediction_id
        return Line(
            prediction_id, deployment, row, sent, received, status, took_s, cuts,
            version=found["model_version"], route=found["parameters"]["route"], score=outputs["score"],
        )  # fmt: skip
    return Line(prediction_id, deployment, row, sent, time.time(), 0, 0.0, cuts)


async def main(name: str, port: int, file: Path, connections: int, pause_s: float, *where: str) -> None:
    ends = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ends.set)
    with file.open("w", encoding="ascii") as lines:

        async def keep_asking(place: int) -> None:
            picks, connection, number = random.Random(f"{name}{place}"), Connection(port), 0
            while not ends.is_set():
                number += 1
                asked = picks.choice(where), picks.randrange(len(ROWS)), f"{name}-{place}-{number}"
                for _ in range(1 + (picks.random() < REPEATS)):
                    line = await answer_of(connection, *asked, until=ends)
                    lines.write(json.dumps(line) + "\n")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s * 2 * picks.random()):
                        await ends.wait()
            connection.close()

        await asyncio.gather(*map(keep_asking, range(connections)))


if __name__ == "__main__":
    asyncio.run(
        main(
            sys.argv[1],
            int(sys.argv[2]),
            Path(sys.argv[3]),
            int(sys.argv[4]),
            float(sys.argv[5]),
            *sys.argv[6:],
        )
    )
