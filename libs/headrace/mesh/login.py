"""Credentials for NATS and Redis, from files: a password never stands in an address, an argument or a log."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.tls import Tls

SECRET_CHARS_MAX = 4096


@dataclass(frozen=True, slots=True)
class NatsLogin:
    """Empty user: none. context: for tls:// servers."""

    user: str = ""
    password: str = field(default="", repr=False)
    context: ssl.SSLContext | None = None

    @staticmethod
    def of(settings: Settings) -> "NatsLogin":
        """Raises BadSetup: the file is not one line of user:password."""
        user = password = ""
        if settings.nats_creds_file:
            text = secret("nats_creds_file", settings.nats_creds_file)
            user, colon, password = text.partition(":")
            if not (user and colon and password):
                raise BadSetup(f"HEADRACE_NATS_CREDS_FILE={settings.nats_creds_file!r}: want one line, user:password")
        return NatsLogin(user, password, _context(settings.nats_url, "tls://", settings))

    def options(self) -> dict[str, Any]:
        """As nats-py calls them."""
        login = {"user": self.user, "password": self.password} if self.user else {}
        return login | ({"tls": self.context} if self.context is not None else {})

    @property
    def inbox(self) -> str:
        """Replies of one user are read by that user alone (mesh/permissions.py)."""
        return f"_INBOX.{self.user}." if self.user else "_INBOX."


def redis_options(settings: Settings) -> dict[str, Any]:
    """As redis-py calls them. Raises BadSetup."""
    options: dict[str, Any] = {}
    if settings.redis_password_file:
        options["password"] = secret("redis_password_file", settings.redis_password_file)
        if settings.redis_user:
            options["username"] = settings.redis_user
    if settings.redis_url.startswith("rediss"):
        tls = Tls.of(settings)
        options["ssl_cert_reqs"] = "required"
        options["ssl_check_hostname"] = True
        if tls is not None:
            options |= {"ssl_ca_certs": str(tls.ca), "ssl_certfile": str(tls.cert), "ssl_keyfile": str(tls.key)}
    return options


def shown(url: str) -> str:
    """For messages and logs: without a user and a password that somebody has put into an address all the same."""
    return re.sub(r"://[^@/\s]*@", "://...@", url)


def secret(name: str, path: str) -> str:
    """The one line of a file. Raises BadSetup: its name is said, never what it holds."""
    try:
        text = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise BadSetup(f"HEADRACE_{name.upper()}={path!r}: {why}") from error
    if not text or "\n" in text or len(text) > SECRET_CHARS_MAX:
        raise BadSetup(f"HEADRACE_{name.upper()}={path!r}: want one line of at most {SECRET_CHARS_MAX} characters")
    return text


def _context(url: str, scheme: str, settings: Settings) -> ssl.SSLContext | None:
    if scheme not in url:
        return None
    tls = Tls.of(settings)
    return tls.client_context() if tls is not None else ssl.create_default_context()
