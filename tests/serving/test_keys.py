"""Who may ask: keys in a file, proven once, followed when the file changes."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import ConfigError, NotFound
from noria.serving.http.keys import Key, KeyFile, Keys, key_digest, new_key
from noria.serving.requests import RequestError

HeaderList = list[tuple[bytes, bytes]]


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "kept" / "keys.json")


def bearer(key: str) -> HeaderList:
    return [(b"host", b"here"), (b"authorization", f"Bearer {key}".encode())]


def plain(key: str) -> HeaderList:
    return [(b"host", b"here"), (b"x-api-key", key.encode())]


def refusal(keys: Keys, headers: HeaderList, deployment: str | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        keys.check(headers, deployment)
    return caught.value


def test_a_key_is_known_by_either_header_again_and_again(file: KeyFile) -> None:
    keys = Keys(file)
    made = file.add("shop")
    assert refusal(keys, bearer(made.key)).status is HTTPStatus.UNAUTHORIZED
    keys.look()
    for _ in range(3):
        assert keys.check(bearer(made.key), "late") == "shop"
        assert keys.check(plain(made.key), None) == "shop"
        assert keys.check([(b"authorization", f"bearer  {made.key} ".encode())], None) == "shop"


def test_what_is_no_key_is_401_and_says_how_to_ask(file: KeyFile) -> None:
    made = file.add("shop")
    keys = Keys(file)
    assert keys.check(plain(made.key), None) == "shop"  # so that it is remembered
    nothing = refusal(keys, [(b"host", b"here")])
    assert (nothing.status, "Authorization: Bearer KEY" in str(nothing)) == (HTTPStatus.UNAUTHORIZED, True)
    assert nothing.headers == ((b"www-authenticate", b'Bearer realm="noria"'),)
    wrong: list[HeaderList] = [
        plain(new_key()),
        bearer(new_key()),
        plain(f"Bearer {made.key}"),
        [(b"authorization", made.key.encode())],
        [(b"authorization", b"Basic " + made.key.encode())],
        plain(made.key[:-1]),
        plain(""),
        plain("\xff" * 10_000),
        [(b"x-api-key", b"\xff\x00"), *bearer(made.key)],  # one that is wrong is not made up for by another
    ]
    for headers in wrong:
        error = refusal(keys, headers)
        assert error.status is HTTPStatus.UNAUTHORIZED
        assert made.key not in str(error)


def test_a_key_counts_at_its_deployments_and_as_long_as_it_lasts(file: KeyFile) -> None:
    made = file.add("shop", deployments=["late", "late", "early"])
    ended = file.add("shop", lasts=timedelta(microseconds=1))
    lasting = file.add("shop", lasts=timedelta(days=1))
    keys = Keys(file)
    assert keys.check(bearer(made.key), "early") == keys.check(bearer(made.key), None) == "shop"
    error = refusal(keys, bearer(made.key), "other")
    assert error.status is HTTPStatus.FORBIDDEN
    assert str(error) == "the key of 'shop' is for early, late, not for 'other'"
    assert b"insufficient_scope" in error.headers[0][1]
    assert keys.check(bearer(lasting.key), "other") == "shop"
    for _ in range(2):  # also once it is remembered
        assert "has ended" in str(refusal(keys, bearer(ended.key)))


def test_a_revoked_key_counts_no_more_once_the_file_is_looked_at(file: KeyFile) -> None:
    first, second = file.add("shop"), file.add("shop", deployments=["late"])
    other = file.add("other")
    keys = Keys(file)
    assert keys.check(plain(first.key), None) == "shop"
    assert [each.id for each in file.revoke("shop", id=first.id)] == [first.id]
    keys.look()
    assert refusal(keys, plain(first.key)).status is HTTPStatus.UNAUTHORIZED
    assert keys.check(plain(second.key), "late") == "shop"
    with pytest.raises(NotFound):
        file.revoke("shop", deployment="early")
    with pytest.raises(NotFound, match="nobody"):
        file.revoke("nobody")
    assert len(file.revoke("shop", deployment="late")) == 1
    keys.look()
    assert refusal(keys, plain(second.key), "late").status is HTTPStatus.UNAUTHORIZED
    assert keys.check(plain(other.key), None) == "other"


def test_only_digests_are_kept_for_the_owner_alone(file: KeyFile) -> None:
    made = file.add("shop", deployments=["late"])
    assert file.path.stat().st_mode & 0o777 == 0o600
    text = file.path.read_text()
    assert made.key not in text
    (kept,) = json.loads(text)["keys"]
    assert (kept["sha256"], kept["deployments"]) == (key_digest(made.key), ["late"])
    assert {each.name for each in file.path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


@pytest.mark.parametrize("fault", ["open to others", "no json", "unknown field", "a folder"])
def test_a_file_that_cannot_be_read_lets_nobody_in_until_it_can(file: KeyFile, fault: str) -> None:
    made = file.add("shop")
    keys = Keys(file)
    good = file.path.read_bytes()
    match fault:
        case "open to others":
            file.path.chmod(0o644)
        case "no json":
            file.path.write_bytes(good[:-5])
        case "unknown field":
            file.path.write_bytes(good.replace(b'"made_at"', b'"made"'))
        case "a folder":
            file.path.unlink()
            file.path.mkdir()
    keys.look()
    error = refusal(keys, plain(made.key))
    assert error.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert error.headers == ((b"retry-after", b"5"),)
    with pytest.raises(ConfigError, match="file of keys"):
        Keys(file)
    if fault == "a folder":
        file.path.rmdir()
    file.path.write_bytes(good)
    file.path.chmod(0o600)
    keys.look()
    assert keys.check(plain(made.key), None) == "shop"


def test_a_file_that_is_gone_lets_in_the_supervisor_alone(file: KeyFile) -> None:
    made, own = file.add("shop"), new_key()
    keys = Keys(file, own=key_digest(own))
    assert keys.check(plain(own), "late") == "noria"
    file.path.unlink()
    keys.look()
    assert refusal(keys, plain(made.key)).status is HTTPStatus.UNAUTHORIZED
    assert keys.check(plain(own), "late") == "noria"


@given(st.text())
def test_a_name_is_taken_or_refused_before_anything_is_written(name: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = KeyFile(Path(folder) / "keys.json")
        try:
            made = file.add(name)
        except ConfigError:
            assert not file.path.exists()
        else:
            assert Keys(file).check(plain(made.key), None) == name


def test_many_callers_are_remembered_only_so_far(file: KeyFile) -> None:
    made = [new_key() for _ in range(3_000)]
    now = datetime.now(UTC)
    listed = [
        Key(id=str(place), name=f"c{place}", sha256=key_digest(each), made_at=now)
        for place, each in enumerate(made)
    ]
    file.path.parent.mkdir()
    descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, msgspec.json.encode({"keys": listed}))
    os.close(descriptor)
    keys = Keys(file)
    for _ in range(2):
        assert [keys.check(plain(each), None) for each in made] == [f"c{place}" for place in range(3_000)]
    assert len(keys._plain) <= 1_024


def test_a_check_of_a_known_key_costs_next_to_nothing(file: KeyFile) -> None:
    made = file.add("shop", deployments=["late"], lasts=timedelta(days=1))
    keys, headers = (
        Keys(file),
        [(b"host", b"here"), (b"accept", b"*/*"), (b"content-type", b"json"), *bearer(made.key)],
    )
    best = min(_cost_us(keys, headers) for _ in range(7))
    assert best < 5.0  # about 0.4 on an idle machine; a hash and a table would be above 1


def _cost_us(keys: Keys, headers: HeaderList) -> float:
    started = time.process_time()
    for _ in range(2_000):
        keys.check(headers, "late")
    return (time.process_time() - started) * 500
