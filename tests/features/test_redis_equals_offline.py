"""What Redis answers is what the definition says, by the property that LMDB is held to."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.histories import AT_ONCE, compare, draw
from tests.servers.redis import RedisServer, redis_server

__all__ = ["redis_server"]

HISTORIES = 1_000


def test_a_thousand_histories_on_redis_are_the_definition_exactly(redis_server: RedisServer) -> None:
    from noria.features.backends.redis import RedisOnlineStore

    @settings(max_examples=HISTORIES // AT_ONCE, deadline=None)
    @given(st.integers(0, 2**64 - 1))
    def the_property(seed: int) -> None:
        compare(draw(seed), store)

    with RedisOnlineStore(f"{redis_server.socket_url}?prefix=parity") as store:
        the_property()
