"""The addresses of a service: its Service inside the cluster; load balancer, Ingress and HTTPRoutes from outside."""

from collections.abc import Iterator
from dataclasses import dataclass

from deployments.commands.cluster.api import Api
from deployments.commands.cluster.errors import ClusterError, NotFound
from deployments.commands.cluster.objects import (
    Gateway,
    HttpRoute,
    Ingress,
    LoadBalancerAddress,
    LoadBalancerStatus,
    Service,
)
from deployments.commands.cluster.rayservice import Snapshot
from deployments.commands.cluster.resources import GATEWAYS, HTTP_ROUTES, INGRESSES, SERVICES

_SERVE_PORT = 8000
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Addresses:
    """The URLs of one service.

    service: the name of the Kubernetes Service; inside: its URL for pods; outside: the URLs for all other clients.
    """

    service: str
    port: int
    inside: str
    outside: list[str]


def addresses(api: Api, snapshot: Snapshot) -> Addresses:
    """Return the addresses of the service.

    Raises ClusterError while there is no Service: KubeRay creates it when the applications run.
    """
    given = snapshot.service["spec"].get("serveService", {}).get("metadata", {}).get("name")
    name = given or f"{snapshot.name}-serve-svc"
    try:
        service = api.get(Service, SERVICES, name)
    except NotFound:
        raise ClusterError(
            f"RayService {snapshot.name} has no Service {name} yet; KubeRay creates it when the applications run. "
            "See `qwen-tts cluster status`."
        ) from None
    spec = service.get("spec", {})
    ports = {port.get("name", ""): port["port"] for port in spec.get("ports") or []}
    port = ports.get("serve") or next(iter(ports.values()), _SERVE_PORT)
    backends = {name, *(f"{cluster}-serve-svc" for cluster in (snapshot.active, snapshot.pending) if cluster)}
    outside = [_url("http", host, port) for host in _balancer_hosts(service)]
    outside += [*_of_ingresses(api, backends), *_of_routes(api, backends)]
    return Addresses(name, port, _url("http", f"{name}.{api.namespace}.svc", port), list(dict.fromkeys(outside)))


def _of_ingresses(api: Api, backends: set[str]) -> Iterator[str]:
    """Yield the URLs of every Ingress path whose backend is one of the Services `backends`."""
    for ingress in api.find(Ingress, INGRESSES):
        spec = ingress.get("spec", {})
        encrypted = {host for tls in spec.get("tls") or [] for host in tls.get("hosts") or []}
        if spec.get("defaultBackend", {}).get("service", {}).get("name") in backends:
            yield from (_url("http", host, 80) for host in _balancer_hosts(ingress))
        for rule in spec.get("rules") or []:
            for path in rule.get("http", {}).get("paths") or []:
                if path["backend"].get("service", {}).get("name") in backends:
                    scheme = "https" if rule.get("host") in encrypted else "http"
                    hosts = [rule["host"]] if rule.get("host") else _balancer_hosts(ingress)
                    yield from (_url(scheme, host, _DEFAULT_PORTS[scheme], path.get("path", "/")) for host in hosts)


def _of_routes(api: Api, backends: set[str]) -> Iterator[str]:
    """Yield the URLs of every HTTPRoute that leads to one of the Services `backends`."""
    try:
        routes = api.find(HttpRoute, HTTP_ROUTES)
    except NotFound:  # the cluster has no Gateway API
        return
    for route in routes:
        spec = route.get("spec", {})
        if not any(
            ref["name"] in backends for rule in spec.get("rules") or [] for ref in rule.get("backendRefs") or []
        ):
            continue
        for parent in spec.get("parentRefs") or []:
            try:
                gateway = api.get(Gateway, GATEWAYS, parent["name"], parent.get("namespace"))
            except NotFound:
                continue
            hosts = spec.get("hostnames") or [a["value"] for a in gateway.get("status", {}).get("addresses") or []]
            for listener in gateway.get("spec", {}).get("listeners") or []:
                if listener["name"] == parent.get("sectionName", listener["name"]):
                    scheme = "https" if listener["protocol"] == "HTTPS" else "http"
                    yield from (_url(scheme, host, listener["port"]) for host in hosts)


def _balancer_hosts(of: Service | Ingress) -> list[str]:
    status: LoadBalancerStatus = of.get("status") or {}
    entries: list[LoadBalancerAddress] = status.get("loadBalancer", {}).get("ingress") or []
    return [entry.get("hostname") or entry.get("ip", "") for entry in entries]


def _url(scheme: str, host: str, port: int, path: str = "/") -> str:
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}") + path.rstrip("/")
