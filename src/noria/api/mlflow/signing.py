"""Addresses that prove themselves: whoever has one may use it, for a while, without saying who asks.

MLflow's clients send parts of a file, and fetch ranges of one, with nothing but an address that was given. It
names the user who was given it, and is worth as much as that user is.
"""

import base64
import hashlib
import hmac
import secrets
import time

__all__ = ["NOBODY", "PARTS", "SIGNED", "Signer", "holder_of"]

PARTS = "/api/2.0/mlflow-artifacts/mpu/part/"  # then the user, the upload, which nobody guesses, and the part
SIGNED = "/api/2.0/mlflow-artifacts/signed/"  # then the user, the end, the signature, and the path
NOBODY = "-"  # can be no user's name
_LASTS_S = 3_600


class Signer:
    """Signs paths, and knows its signatures again while this process lives."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def signed(self, path: str, user: str) -> str:
        """Give what stands for a path in an address, all of it quoted but the path."""
        ends = str(int(time.time()) + _LASTS_S)
        return f"{user}/{ends}/{self._signature(user, ends, path)}/"

    def read(self, rest: str) -> str | None:
        """Give the path that was signed, None if it was not, or too long ago."""
        user, ends, signature, path = [*rest.split("/", 3), "", "", ""][:4]
        wanted = self._signature(user, ends, path)
        is_good = hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), wanted.encode())
        return path if is_good and int(ends) > time.time() else None

    def _signature(self, user: str, ends: str, path: str) -> str:
        text = f"{user}/{ends}/{path}".encode("utf-8", "surrogatepass")  # no slash is in the first two
        return base64.urlsafe_b64encode(hmac.digest(self._key, text, hashlib.sha256)).decode().rstrip("=")


def holder_of(path: str) -> str | None:
    """Give the user whom an address names that has to prove itself; None: it is another one."""
    for beginning in (PARTS, SIGNED):
        if path.startswith(beginning):
            return path[len(beginning) :].partition("/")[0]
    return None
