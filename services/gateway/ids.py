"""Request ids: only what can be one reaches the bus."""

import re

from headrace.core.errors import InvalidInput

REQUEST_ID = re.compile(r"[0-9a-f]{32}")


def checked_id(request_id: str) -> str:
    """Raises InvalidInput."""
    if not REQUEST_ID.fullmatch(request_id):
        raise InvalidInput("a request id has 32 lower-case hex digits", field="request_id")
    return request_id
