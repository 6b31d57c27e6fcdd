"""What Redis answers is what the definition says, by the property that LMDB is held to."""

from itertools import count

import numpy as np
from hypothesis import given, settings
from tests.features.test_offline_equals_online import (
    VIEWS,
    History,
    assert_same,
    histories,
    reference,
    replayed,
    spine_of,
    spine_table,
    table,
)
from tests.servers.redis import RedisServer, redis_server

from noria.features.offline import point_in_time

__all__ = ["redis_server"]


def test_offline_and_redis_are_the_definition_exactly(redis_server: RedisServer) -> None:
    from noria.features.backends.redis import RedisOnlineStore

    numbers = count()

    @settings(max_examples=15, deadline=None)
    @given(histories())
    def the_property(history: History) -> None:
        spine = spine_of(sorted(set(history.instants)))
        url = f"{redis_server.socket_url}?prefix=parity{next(numbers)}"
        with RedisOnlineStore(url) as store:
            online = replayed(store, history, spine)
        for view in VIEWS:
            wanted = np.array(reference(view, history.rows, spine))
            assert_same(online, wanted, view)
            offline = point_in_time(view, table(history.rows), spine_table(spine))
            for name in view.columns:
                if "std" in name:
                    np.testing.assert_array_equal(online[name], offline.column(name).to_numpy())

    the_property()
