"""A gRPC interceptor for what operators call: without a key of the scope no method of these services is reached.

Health and reflection stay open: they tell that a service lives and what its methods are called.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from headrace.core.access import Scope
from headrace.core.errors import HeadraceError
from headrace.mesh import rpc
from headrace.mesh.keyring import Keys

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    def __init__(self, keys: Keys, scope: Scope, services: Sequence[str]) -> None:
        """services: full names, all of whose methods take and give one message."""
        self._keys = keys
        self._scope = scope
        self._prefixes = tuple(f"/{name}/" for name in services)

    async def intercept_service(self, continuation: Continuation, handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith(self._prefixes):
            metadata = dict(handler_call_details.invocation_metadata or ())
            try:
                self._keys.require(str(metadata.get("authorization", "")), self._scope)
            except HeadraceError as error:
                return _refusal(error)
        return await continuation(handler_call_details)


def operators(keys_file: str, services: Sequence[str]) -> Sequence[Guard]:
    """Of a service that operators call. A file of plain lines says nothing of operators and changes nothing for them.

    Raises BadSetup.
    """
    keys = Keys.read(keys_file)
    return [Guard(keys, "operate", services)] if keys.scoped else []


def _refusal(error: HeadraceError) -> Any:
    async def refuse(_request: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        await rpc.abort(context, error)

    return grpc.unary_unary_rpc_method_handler(refuse)
