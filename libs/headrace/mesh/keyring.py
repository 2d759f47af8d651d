"""API keys as a running process knows them: looked up by hash, read again when their file changes.

A key that is revoked, expires or is rotated is refused within RELOAD_S, on every process that reads the file.
"""

import hmac
import time
from collections.abc import Iterable
from pathlib import Path

from headrace.core.access import ANYBODY, Key, Scope
from headrace.core.errors import PermissionDenied, Unauthenticated
from headrace.mesh import keyfile
from headrace.mesh.errors import BadSetup
from headrace.mesh.logs import get_logger

RELOAD_S = 1.0  # a look at the file's time costs 2 us
KEY_CHARS_MAX = 512  # of an Authorization header that is worth hashing

_log = get_logger("keys")


class Keys:
    """Without a file everybody is one tenant and may do everything."""

    def __init__(self, keys: Iterable[Key] | None = None, path: Path | None = None) -> None:
        self._path = path
        self._seen = _stamp(path)
        self._looked_s = time.monotonic()
        self._by_hash: dict[bytes, Key] | None = None
        self._by_id: dict[str, Key] = {}
        if keys is not None:
            self._take(keys)

    @staticmethod
    def read(path: str) -> "Keys":
        """Raises BadSetup."""
        return Keys(keyfile.read(Path(path)), Path(path)) if path else Keys()

    @property
    def open(self) -> bool:
        return self._by_hash is None

    @property
    def scoped(self) -> bool:
        """Whether the file says who may operate: then nobody else may."""
        return self._path is not None and self._path.suffix == ".toml"

    def find(self, authorization: str) -> Key:
        """Whose Authorization header ("Bearer <key>") this is.

        The time of a look-up depends on the key's hash alone, which tells nothing about a key.

        Raises:
            Unauthenticated: no key, or one that is unknown, revoked or expired.
        """
        self._look()
        if self._by_hash is None:
            return ANYBODY
        scheme, _, word = authorization.partition(" ")
        word = word.strip()
        if scheme.lower() == "bearer" and 0 < len(word) <= KEY_CHARS_MAX:
            presented = keyfile.digest(word)
            key = self._by_hash.get(presented)
            if key is not None and _good(key, presented, time.time()):
                return key
        raise Unauthenticated("a valid API key is needed: Authorization: Bearer <key>", field="authorization")

    def named(self, key_id: str) -> Key:
        """The key of this id, for what goes on in its name. Raises Unauthenticated: it is gone, revoked or expired."""
        self._look()
        key = self._by_id.get(key_id)
        if key is not None and time.time() < key.ends_s():
            return key
        raise Unauthenticated(f"the API key {key_id} has been revoked or is over", field="authorization")

    def require(self, authorization: str, *scopes: Scope) -> Key:
        """Raises Unauthenticated; PermissionDenied if the key has none of these scopes."""
        key = self.find(authorization)
        if key.scopes.isdisjoint(scopes):
            raise PermissionDenied(f"this key has no scope {' or '.join(scopes)}", field="authorization")
        return key

    def _look(self) -> None:
        now_s = time.monotonic()
        if self._path is None or now_s - self._looked_s < RELOAD_S:
            return
        self._looked_s = now_s
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._take(keyfile.read(self._path))
            _log.info("keys_read", keys=len(self._by_hash or ()))
        except BadSetup as error:  # the last good file holds: a slip of the pen locks nobody out and lets nobody in
            _log.error("keys_file_bad", why=str(error))

    def _take(self, keys: Iterable[Key]) -> None:
        listed = list(keys)
        self._by_hash = {key.old_hash: key for key in listed if key.old_hash} | {key.hash: key for key in listed}
        self._by_id = {key.id: key for key in listed if key.id}


def _good(key: Key, presented: bytes, now_s: float) -> bool:
    if now_s >= key.ends_s():
        return False
    return hmac.compare_digest(presented, key.hash) or now_s < key.old_until_s


def _stamp(path: Path | None) -> tuple[int, int, int]:
    if path is None:
        return (0, 0, 0)
    try:
        told = path.stat()
    except OSError:
        return (0, 0, 0)
    return (told.st_mtime_ns, told.st_size, told.st_ino)
