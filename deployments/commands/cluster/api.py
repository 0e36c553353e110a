"""The Kubernetes API over the connection of the `kubernetes` client: JSON in and out.

Connecting and reading always have a timeout. Errors are ClusterErrors that name the verb and the resource. No request
is retried here.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from deployments.commands.cluster.errors import ApiError, ClusterError, Conflict, NotFound, Unreachable
from deployments.commands.cluster.objects import Object
from deployments.commands.cluster.resources import PODS, Resource

FIELD_MANAGER = "qwen-tts"
_CONNECT_S = 5.0
_READ_S = 30.0
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

INSTALL_OPERATOR = (
    "helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/"
    " --namespace kuberay-system --create-namespace"
)


_Shape = TypeVar("_Shape", bound=Object)


class _Cause(TypedDict, total=False):
    reason: str
    message: str
    field: str


class _Details(TypedDict, total=False):
    causes: list[_Cause]


class _Status(TypedDict, total=False):
    message: str
    details: _Details


class _ServedResource(TypedDict):
    name: str
    kind: str
    namespaced: bool


class _ServedResources(TypedDict):
    resources: list[_ServedResource]


class Api:
    """A client of one API server, with the credentials of one kubeconfig context."""

    def __init__(self, connection: client.ApiClient, namespace: str) -> None:
        assert namespace, "without a namespace, requests would be for all namespaces"
        self._connection = connection
        self.namespace = namespace
        self.host: str = connection.configuration.host
        self._served: dict[str, list[_ServedResource]] = {}

    def close(self) -> None:
        self._connection.close()

    def within(self, namespace: str) -> "Api":
        """Return a client of the same server whose default namespace is `namespace`."""
        return Api(self._connection, namespace)

    def get(self, shape: type[_Shape], resource: Resource, name: str, namespace: str | None = None) -> _Shape:
        """Return one object. Raises NotFound."""
        path = resource.path(namespace or self.namespace, name)
        return cast(_Shape, self._json("GET", path, _Doing("get", resource, self._where(resource, namespace), name)))

    def find(self, shape: type[_Shape], resource: Resource, labels: str = "", fields: str = "") -> list[_Shape]:
        """Return the objects of the namespace that match both selectors, in the server's order."""
        return cast(list[_Shape], self._find(resource, labels, fields, _JSON))

    def find_metadata(self, resource: Resource, labels: str) -> list[Object]:
        """Return the metadata of the objects that match. The server sends nothing else of them."""
        return self._find(resource, labels, "", _METADATA)

    def _find(self, resource: Resource, labels: str, fields: str, accept: str) -> list[Object]:
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": "500"}
        found: list[Object] = []
        while True:
            doing = _Doing("list", resource, self.namespace)
            page = self._json("GET", resource.path(self.namespace), doing, query, accept=accept)
            found += page["items"]
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return found

    def apply(
        self, resource: Resource, body: Mapping[str, object], name: str, namespace: str, force: bool, dry_run: bool
    ) -> Object:
        """Apply `body` on the server (server-side apply) and return the resulting object. Raises Conflict."""
        assert body.get("kind") == resource.kind, f"a {body.get('kind')} is applied as a {resource.kind}"
        query = {
            "fieldManager": FIELD_MANAGER,
            "force": "true" if force else "false",
            "fieldValidation": "Strict",
            "dryRun": "All" if dry_run else "",
        }
        doing = _Doing("patch", resource, self._where(resource, namespace), name)
        path = resource.path(namespace, name)
        return cast(Object, self._json("PATCH", path, doing, query, body, "application/apply-patch+yaml"))

    def merge(self, resource: Resource, name: str, patch: Mapping[str, object], field_manager: str) -> None:
        """Send a JSON merge patch (RFC 7386)."""
        doing = _Doing("patch", resource, self.namespace, name)
        query = {"fieldManager": field_manager, "fieldValidation": "Strict"}
        path = resource.path(self.namespace, name)
        self._json("PATCH", path, doing, query, patch, "application/merge-patch+json")

    def wait_for_change(self, resource: Resource, seen: Object, timeout_s: int) -> None:
        """Return at the first change of the object after version `seen`, or after `timeout_s`.

        The change itself is not returned: the caller reads the object again.
        """
        assert timeout_s >= 1, "the API server reads 0 as its own, far longer limit"
        assert seen["metadata"].get("resourceVersion"), "without a version, a watch begins with the present object"
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={seen['metadata']['name']}",
            "resourceVersion": seen["metadata"]["resourceVersion"],
            "timeoutSeconds": str(timeout_s),
            "allowWatchBookmarks": "false",
        }
        doing = _Doing("watch", resource, self.namespace)
        with self._open("GET", resource.path(self.namespace), doing, query, read_s=timeout_s + 5) as answer:
            next(iter(answer), None)

    def pod_log(self, pod: str, container: str, tail: int, previous: bool) -> Iterator[str]:
        """Yield the last log lines of a container, or of its previous run, without line ends."""
        assert tail >= 0, "a negative tail is an error of the API server, or the whole log"
        query = {"container": container, "tailLines": str(tail), "previous": "true" if previous else ""}
        path, doing = f"{PODS.path(self.namespace, pod)}/log", _Doing("get", PODS, self.namespace, f"{pod}/log")
        with self._open("GET", path, doing, query) as answer:
            for line in answer:
                yield line.decode("utf-8", "replace").rstrip("\r\n")

    def resource_of(self, api_version: str, kind: str) -> Resource | None:
        """Return the resource under which the server offers `kind`, or None if the server does not know the kind."""
        if api_version not in self._served:
            path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            kinds = Resource(api_version, kind, f"the kinds of {api_version}", namespaced=False)
            try:
                served = cast(_ServedResources, self._json("GET", path, _Doing("list", kinds, "")))
            except NotFound:
                served = {"resources": []}
            self._served[api_version] = served["resources"]
        for entry in self._served[api_version]:
            if entry["kind"] == kind and "/" not in entry["name"]:
                return Resource(api_version, kind, entry["name"], entry["namespaced"])
        return None

    def _where(self, resource: Resource, namespace: str | None) -> str:
        return (namespace or self.namespace) if resource.namespaced else ""

    def _json(
        self,
        method: str,
        path: str,
        doing: "_Doing",
        query: dict[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        content_type: str | None = None,
        accept: str = _JSON,
    ) -> Any:  # noqa: ANN401  # any JSON: each caller names the shape
        with self._open(method, path, doing, query or {}, body, content_type, accept) as answer:
            try:
                return json.loads(answer.read())
            except ValueError:
                raise Unreachable(f"The answer of {self.host} is not JSON, for the request to {doing}") from None

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        doing: "_Doing",
        query: dict[str, str],
        body: Mapping[str, object] | None = None,
        content_type: str | None = None,
        accept: str = _JSON,
        read_s: float = _READ_S,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Yield the response, whose body is read by the caller.

        Raises ApiError for an error status, Unreachable without a response or when the connection breaks while the
        body is read.
        """
        assert (body is None) == (content_type is None), "a body is sent without its content type, or the reverse"
        headers = {"Accept": accept} | ({"Content-Type": content_type} if content_type else {})
        path += "?" + urlencode({name: value for name, value in query.items() if value})
        try:
            request = self._connection.param_serialize(
                method, path, header_params=headers, auth_settings=["BearerToken"], body=body
            )
            answer = self._connection.call_api(*request, _request_timeout=(_CONNECT_S, read_s)).response
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            raise Unreachable(self._no_answer(error)) from None
        try:
            if answer.status >= 400:
                raise self._refusal(answer.status, answer.read(), doing)
            yield answer
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(self._no_answer(error)) from None
        finally:
            answer.close()

    def _no_answer(self, error: Exception) -> str:
        reason = getattr(error, "reason", None) or error
        return f"No answer from the Kubernetes API at {self.host}: {' '.join(str(reason).split())}"

    def _refusal(self, status: int, body: bytes, doing: "_Doing") -> ApiError:
        try:
            found: _Status = json.loads(body)
            detail = found.get("message", "")
        except (ValueError, AttributeError):
            found, detail = {}, body[:200].decode("utf-8", "replace")
        detail = detail or "no reason given"
        if status == 401:
            return ApiError(f"{self.host} does not accept these credentials (401) to {doing}: {detail}", status, detail)
        if status == 403:
            return ApiError(f"Not allowed to {doing} (403): {detail}", status, detail)
        if status == 404:
            return NotFound(f"Could not {doing} (404): {detail}", status, detail)
        causes = found.get("details", {}).get("causes") or []
        owned = [(cause["field"], cause["message"]) for cause in causes if cause["reason"] == "FieldManagerConflict"]
        if owned:
            return Conflict(f"Could not {doing} (409): {detail}", status, detail, owned)
        return ApiError(f"Could not {doing} ({status}): {detail}", status, detail)


@dataclass(frozen=True)
class _Doing:
    """A request as error messages name it: "list pods in namespace default"."""

    verb: str
    resource: Resource
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        named = f" {self.name}" if self.name else ""
        return f"{self.verb} {self.resource.plural}{named}" + (
            f" in namespace {self.namespace}" if self.namespace else ""
        )


def connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Api:
    """Return a client for the API server of a kubeconfig context; no request is sent yet. Raises ClusterError."""
    settings = client.Configuration()
    settings.retries = False
    file = str(kubeconfig) if kubeconfig else None
    try:
        _, active = contexts = config.list_kube_config_contexts(file)
        chosen = active if context is None else next((c for c in contexts[0] if c["name"] == context), None)
        if chosen is None:
            names = ", ".join(sorted(c["name"] for c in contexts[0]))
            raise ClusterError(f"The kubeconfig has no context {context}; it has: {names}")
        config.load_kube_config(file, context, client_configuration=settings)
    except (config.ConfigException, OSError, yaml.YAMLError) as error:
        raise ClusterError(f"The kubeconfig cannot be used: {' '.join(str(error).split())}") from None
    except (TypeError, KeyError, AttributeError, ValueError):  # the client raises these for YAML of another structure
        raise ClusterError("The kubeconfig cannot be used: its structure is not that of a kubeconfig") from None
    return Api(client.ApiClient(settings), namespace or chosen["context"].get("namespace") or "default")


def operator_missing(host: str) -> ClusterError:
    """Return the error for a server without RayServices, with the command that installs the operator."""
    return ClusterError(
        f"{host} does not know RayServices: the KubeRay operator is not installed. Install it with\n"
        f"  {INSTALL_OPERATOR}"
    )
