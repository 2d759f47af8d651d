"""How many replicas a Kubernetes Deployment has and shall have: its scale subresource, with the pod's own account.

GET and PATCH /apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale; a total may be set twice, so both are
tried again where that may help. Each answer that is none is a typed error that says what to do.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from headrace.core.errors import Conflict, HeadraceError, NotFound, PermissionDenied, StageError, Unavailable
from headrace.mesh.errors import BadSetup

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 3.0  # of each try: an API server that is busy longer is asked again at the next look
TRIES = 3
BETWEEN_S_MAX = 1.0
REPLY_CHARS = 200  # of an error's body


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the API is, and by what right it is asked."""

    url: str
    namespace: str
    token_file: Path  # read at every call: Kubernetes writes a new token every hour
    ca_file: Path | None = None

    @staticmethod
    def of_pod(env: Mapping[str, str], account: Path = ACCOUNT) -> "Cluster":
        """Raises BadSetup: this process is no pod, or has no service account."""
        host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise BadSetup("HEADRACE_AUTOSCALE_VIA=kubernetes: KUBERNETES_SERVICE_HOST is not set; run in a pod")
        try:
            namespace = (account / "namespace").read_text().strip()
        except OSError as error:
            raise BadSetup(f"HEADRACE_AUTOSCALE_VIA=kubernetes: no service account in {account}: {error}") from error
        host = f"[{host}]" if ":" in host else host
        return Cluster(f"https://{host}:{port}", namespace, account / "token", account / "ca.crt")


class Kubernetes:
    def __init__(self, cluster: Cluster, timeout_s: float = TIMEOUT_S) -> None:
        self._cluster = cluster
        verify = ssl.create_default_context(cafile=str(cluster.ca_file)) if cluster.ca_file is not None else True
        # An environment's proxy is for the world outside the cluster.
        self._client = httpx.AsyncClient(
            base_url=cluster.url, verify=verify, timeout=timeout_s, trust_env=False, follow_redirects=False
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def replicas(self, deployment: str) -> int:
        """That it shall have. Raises HeadraceError."""
        return await self._asked("GET", deployment, None)

    async def scale(self, deployment: str, replicas: int) -> int:
        """Returns what it shall have now. Raises HeadraceError."""
        return await self._asked("PATCH", deployment, replicas)

    async def _asked(self, method: str, deployment: str, replicas: int | None) -> int:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(multiplier=0.1, max=BETWEEN_S_MAX),
            retry=retry_if_exception(lambda error: isinstance(error, Unavailable | Conflict)),
            reraise=True,
        )

        async def once() -> int:  # tenacity awaits coroutine functions alone
            return await self._once(method, deployment, replicas)

        return await retrying(once)

    async def _once(self, method: str, deployment: str, replicas: int | None) -> int:
        what = f"{method} deployments/{deployment}/scale"
        path = f"/apis/apps/v1/namespaces/{self._cluster.namespace}/deployments/{deployment}/scale"
        body = {"spec": {"replicas": replicas}} if replicas is not None else None
        headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/merge-patch+json"}
        try:
            reply = await self._client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"{what}: Kubernetes does not answer: {error!r}", retry_after_s=1.0) from error
        if reply.status_code != httpx.codes.OK:
            raise _error(what, reply)
        try:
            return int(reply.json()["spec"].get("replicas", 0))  # 0 is left out
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StageError(f"{what}: the answer is no Scale: {reply.text[:REPLY_CHARS]}") from error

    def _token(self) -> str:
        try:
            return self._cluster.token_file.read_text().strip()
        except OSError as error:
            raise PermissionDenied(f"the service account's token cannot be read: {error}") from error


def _error(what: str, reply: httpx.Response) -> HeadraceError:
    status, told = reply.status_code, f"{what}: {reply.status_code} {reply.text[:REPLY_CHARS]}"
    if status in (401, 403):
        return PermissionDenied(f"{told}; the service account needs get and patch on deployments/scale")
    if status == 404:
        return NotFound(f"{told}; name the Deployment in HEADRACE_AUTOSCALE_POOLS, as in encode:0-4@my-encoder")
    if status == 409:
        return Conflict(told)
    if status == 429 or status >= 500:
        return Unavailable(told, retry_after_s=1.0)
    return StageError(told)
