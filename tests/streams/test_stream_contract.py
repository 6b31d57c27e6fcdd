"""Every stream passes the contract suite that ships, against the real thing."""

import pytest
from tests.servers.kafka import kafka_url
from tests.servers.nats import NatsServer, nats_server

from noria.testing.stream import StreamContract

__all__ = ["kafka_url", "nats_server"]


class TestLogStream(StreamContract):
    @pytest.fixture
    def url(self) -> str:
        return "log:streams"


class TestNatsStream(StreamContract):
    @pytest.fixture
    def url(self, nats_server: NatsServer) -> str:
        return nats_server.url


class TestKafkaStream(StreamContract):
    @pytest.fixture
    def url(self, kafka_url: str) -> str:
        return kafka_url
