"""The right to write an online store in Redis, and its changes, each whole or not at all.

A change is one script. It asks whether the writer still holds the lease and whether the store stands where
the writer left it: a writer that was paused, or a call that arrives late, changes nothing. As every change
leaves another head behind, a call whose answer was lost can be sent again, and is made once.
"""

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec
from redis.exceptions import RedisError

from noria.errors import LeaseHeld, StoreError
from noria.features.backends.redis_connection import AGAIN, Connection
from noria.features.backends.redis_format import (
    Catalogue,
    Head,
    read_standing,
    rows_prefix,
)
from noria.records import new_id

__all__ = ["Writer"]

_RENEWALS = 3  # in the time of a lease
_SCANNED = 1_000  # keys that are looked at at once

# KEYS: lease, head, those to put, those to delete.
# ARGV: token, milliseconds, head before, head after, number of those to put, their values.
# The puts come first: where memory is short Redis refuses the first of them, and nothing after it.
_CHANGE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {'held', holder} end
local head = redis.call('GET', KEYS[2]) or ''
if head ~= ARGV[3] then
  if head ~= ARGV[4] then return {'moved', head} end
  return {'made', head}
end
local puts = tonumber(ARGV[5])
for at = 1, puts do redis.call('SET', KEYS[2 + at], ARGV[5 + at]) end
redis.call('SET', KEYS[2], ARGV[4])
for at = 3 + puts, #KEYS do redis.call('DEL', KEYS[at]) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'made', ARGV[4]}
"""
_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Writer:
    """The only one who writes.

    Parameters
    ----------
    connection : Connection
        To Redis.
    anew : bool
        Throw away what is there first.

    Raises
    ------
    LeaseHeld
        If another one writes; names it.
    StoreError
        If Redis is away, or may evict values: they would be answered as if never seen.
    """

    def __init__(self, connection: Connection, *, anew: bool = False) -> None:
        self._connection = connection
        self._lease, self._head_key = connection.key("writer"), connection.key("head")
        self._catalogue_key = connection.key("catalogue")
        self._token = f"process {os.getpid()} on {socket.gethostname()} ({new_id()})".encode()
        self._change = connection.client.register_script(_CHANGE)
        self._renewing = connection.client.register_script(_RENEW)
        self._releasing = connection.client.register_script(_RELEASE)
        self._open: dict[bytes, tuple[Head, Catalogue, bool]] = {}  # heads of changes that may have been made
        self.strayed: set[str] = set()  # views whose rows are not those that this writer put there
        self._refuse_eviction()
        self._take()
        if anew:
            self._throw_away()
        self._head, self._catalogue = read_standing(connection)
        self._closed = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="noria-redis-lease", daemon=True)
        self._renewer.start()

    @property
    def catalogue(self) -> Catalogue:
        """The views."""
        return self._catalogue

    @property
    def position(self) -> int | None:
        """The position that was last set."""
        return self._head.position

    def close(self) -> None:
        """Let go of the right to write."""
        self._closed.set()
        self._renewer.join()
        with suppress(StoreError):  # where Redis is away the lease runs out by itself
            self._connection.run(lambda _: self._releasing(keys=[self._lease], args=[self._token]))

    def settle(self) -> bool:
        """Learn whether a change whose answer was lost was made; one that was not never will be.

        Raises
        ------
        LeaseHeld
            If another one writes by now.
        StoreError
            If Redis is still away, or the store does not stand where it was left.
        """
        if not self._open:
            return False
        barrier = self._head.following(redefined=False, position=None)
        self._open[barrier.raw] = (barrier, self._catalogue, False)
        found = self._run(barrier, {}, [])
        self._head, self._catalogue, made = self._open[found]
        self._open.clear()
        return made

    def commit(
        self,
        puts: Mapping[bytes, bytes],
        gone: Sequence[bytes] = (),
        *,
        catalogue: Catalogue | None = None,
        redefined: bool = False,
        position: int | None = None,
    ) -> None:
        """Make a change, all or nothing, and stay the writer.

        Parameters
        ----------
        puts : mapping of bytes to bytes
            Values to put.
        gone : sequence of bytes
            Keys to delete.
        catalogue : Catalogue or None
            The new one, if it changes.
        redefined : bool
            Whether readers have to look the views up again.
        position : int or None
            The new one, if it changes.

        Raises
        ------
        LeaseHeld
            If another one writes by now.
        StoreError
            If Redis is away; `settle` tells afterwards whether the change was made.
        """
        self.settle()
        head = self._head.following(redefined=redefined, position=position)
        if catalogue is not None:
            puts = {**puts, self._catalogue_key: _encode(catalogue)}
        after = (head, self._catalogue if catalogue is None else catalogue, True)
        self._open[head.raw] = after
        self._run(head, puts, gone)
        self._head, self._catalogue, _ = after
        self._open.clear()

    def sweep(self) -> None:
        """Delete the rows that are in no view."""
        apart = self._catalogue.apart
        if not apart:
            return
        for rows in apart:
            for keys in self.scan(rows):
                self._connection.run(lambda client, keys=keys: client.unlink(*keys))  # type: ignore[misc]
        self.commit({}, catalogue=Catalogue(self._catalogue.views, []))

    def scan(self, rows: str) -> "list[list[bytes]]":
        """List the keys of rows, some at a time."""
        prefix, cursor, found = rows_prefix(self._connection, rows), 0, []
        pattern = prefix + b"*"
        while True:
            at = cursor
            cursor, keys = self._connection.run(
                lambda client, at=at: client.scan(at, match=pattern, count=_SCANNED)  # type: ignore[misc]
            )
            if keys:
                found.append(keys)
            if not cursor:
                return found

    def _throw_away(self) -> None:
        """Delete all keys of the store but the right to write it, those first by which it is found."""
        self._connection.run(lambda client: client.unlink(self._head_key, self._catalogue_key))
        # A name of rows is 12 digits: other stores may have prefixes that begin with this one.
        cursor, pattern = 0, self._connection.key("[0-9a-f]" * 12 + ":*")
        while True:
            at = cursor
            cursor, keys = self._connection.run(
                lambda client, at=at: client.scan(at, match=pattern, count=_SCANNED)  # type: ignore[misc]
            )
            if keys:
                self._connection.run(lambda client, keys=keys: client.unlink(*keys))  # type: ignore[misc]
            if not cursor:
                return

    def _run(self, head: Head, puts: Mapping[bytes, bytes], gone: Sequence[bytes]) -> bytes:
        """Give the head at which the store stands, one of those that it may stand at."""
        keys = [self._lease, self._head_key, *puts, *gone]
        lease_ms = self._connection.options.lease_ms
        args: list[bytes | int] = [self._token, lease_ms, self._head.raw, head.raw, len(puts), *puts.values()]
        said, what = self._connection.run(lambda _: self._change(keys=keys, args=args))
        if said == b"held":
            raise LeaseHeld(f"online store {self._connection.place}", _named(what))
        if what not in self._open:
            raise self._astray(what)
        return bytes(what)

    def _astray(self, found: bytes) -> StoreError:
        """Give up what is known of the store, for it is another one."""
        self.strayed |= set(self._catalogue.views)
        self._head, self._catalogue = read_standing(self._connection)
        self._open.clear()
        place = self._connection.place
        if not found:
            return StoreError(
                f"the online store {place} is empty: Redis was flushed, or started without its data; {AGAIN}"
            )
        return StoreError(
            f"the online store {place} does not stand where this writer left it, but at position "
            f"{self._head.position}: Redis started from older data, or another process wrote; open it again "
            f"and go on from its position, or {AGAIN}"
        )

    def _take(self) -> None:
        lease_ms = self._connection.options.lease_ms
        for _ in range(2):
            if self._connection.run(
                lambda client: client.set(self._lease, self._token, nx=True, px=lease_ms)
            ):
                return
            (holder,) = self._connection.get(self._lease)
            if holder == self._token:  # the answer of the first try was lost
                return
            if holder is not None:
                break
        raise LeaseHeld(f"online store {self._connection.place}", _named(holder or b"another process"))

    def _renew(self) -> None:
        lease_ms = self._connection.options.lease_ms
        while not self._closed.wait(lease_ms / 1e3 / _RENEWALS):
            try:
                self._renewing(keys=[self._lease], args=[self._token, lease_ms])
            except RedisError:
                continue  # the next change says so, or takes the lease again if nobody else has

    def _refuse_eviction(self) -> None:
        policy = self._connection.run(lambda client: client.info("memory")).get("maxmemory_policy", "")
        if str(policy).startswith("allkeys"):
            raise StoreError(
                f"Redis may evict values of the online store {self._connection.place} (maxmemory-policy "
                f"{policy}), and they would be answered as if never seen; set `maxmemory-policy noeviction`"
            )


def _named(token: bytes) -> str:
    """Give the holder of a lease, without what makes it unique."""
    return token.decode("utf-8", "replace").rpartition(" (")[0] or "another process"


def _encode(catalogue: Catalogue) -> bytes:
    return msgspec.json.encode(catalogue)
