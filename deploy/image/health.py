"""The container's health check: asks this container's own service over grpc.health.v1 and exits 0 if it serves.

The port is the one in HEADRACE_GRPC_ADDR; the address is always this container's own. Where the service speaks TLS it
asks as one of its kind: with the service's own certificate.
"""

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 3.0


def opened(address: str) -> grpc.Channel:
    files = [os.environ.get(f"HEADRACE_TLS_{name}", "") for name in ("CA", "KEY", "CERT")]
    if not all(files):
        return grpc.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))
    return grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", "headrace.internal")])


def status(port: str) -> str:
    """The name of the service's overall status, or why there is none."""
    with opened(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


if __name__ == "__main__":
    answer = status(os.environ["HEADRACE_GRPC_ADDR"].rpartition(":")[2])
    print(answer)
    sys.exit(answer != "SERVING")
