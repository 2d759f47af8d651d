"""A gateway's HTTP, for commands: with the operator's key, and over TLS where the mesh has certificates."""

import ssl

import httpx

from headrace.client.door import Door


def client(url: str, door: Door, timeout_s: float) -> httpx.Client:
    """Raises OSError: a file of the door cannot be read."""
    headers = {"authorization": f"Bearer {door.api_key}"} if door.api_key else {}
    verify: ssl.SSLContext | bool = True
    if door.ca:
        verify = ssl.create_default_context(cafile=door.ca)
        if door.cert and door.key:
            verify.load_cert_chain(door.cert, door.key)
    return httpx.Client(base_url=url, headers=headers, timeout=timeout_s, verify=verify, trust_env=False)
