"""The discovery routes of an API server: its groups and kinds (aggregated and by group), version and parameters."""

import itertools
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.deployments.commands.cluster.fields import Json
from tests.deployments.commands.cluster.store import Kind

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def routes(kinds: list[Kind]) -> list[web.RouteDef]:
    """Return the routes GET /version, /api, /apis, /openapi/v3 and the routes they refer to."""
    by_version = {
        api_version: list(found)
        for api_version, found in itertools.groupby(
            sorted(kinds, key=lambda kind: kind.api_version), key=lambda kind: kind.api_version
        )
    }
    groups = [version for version in by_version if "/" in version]
    found = [
        _get("/version", {"major": "1", "minor": "35", "gitVersion": "v1.35.0", "platform": "linux/amd64"}),
        _get("/api", {"kind": "APIVersions", "versions": ["v1"]}, _aggregated({"v1": by_version["v1"]})),
        _get(
            "/apis",
            {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(version) for version in groups]},
            _aggregated({version: by_version[version] for version in groups}),
        ),
        _get("/openapi/v3", {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in map(_root, by_version)}}),
    ]
    for api_version, own in by_version.items():
        found.append(_get(f"/{_root(api_version)}", _resource_list(api_version, own)))
        found.append(_get(f"/openapi/v3/{_root(api_version)}", _openapi(api_version, own)))
    return found


def _get(path: str, body: Json, aggregated: Json | None = None) -> web.RouteDef:
    async def answer(request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "").replace(" ", "")
        if aggregated is not None and _AGGREGATED in accept:
            return web.Response(body=json.dumps(aggregated), headers={"Content-Type": _AGGREGATED})
        return web.json_response(body)

    handler: Callable[[web.Request], Awaitable[web.StreamResponse]] = answer
    return web.get(path, handler)


def _root(api_version: str) -> str:
    return f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"


def _group(api_version: str) -> Json:
    version = {"groupVersion": api_version, "version": api_version.rpartition("/")[2]}
    return {"name": api_version.partition("/")[0], "versions": [version], "preferredVersion": version}


def _resource_list(api_version: str, kinds: list[Kind]) -> Json:
    resources: list[Json] = []
    for kind in kinds:
        entry = {"kind": kind.kind, "namespaced": kind.namespaced, "singularName": kind.kind.lower()}
        resources.append({"name": kind.plural, "verbs": _VERBS} | entry)
        if kind.has_status:
            resources.append({"name": f"{kind.plural}/status", "verbs": ["get", "patch", "update"]} | entry)
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}


def _aggregated(by_version: dict[str, list[Kind]]) -> Json:
    items = []
    for api_version, kinds in by_version.items():
        group, _, version = api_version.rpartition("/")
        resources = [
            {
                "resource": kind.plural,
                "responseKind": {"group": group, "version": version, "kind": kind.kind},
                "scope": "Namespaced" if kind.namespaced else "Cluster",
                "singularResource": kind.kind.lower(),
                "verbs": _VERBS,
            }
            for kind in kinds
        ]
        items.append({"metadata": {"name": group}, "versions": [{"version": version, "resources": resources}]})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _openapi(api_version: str, kinds: list[Kind]) -> Json:
    """Return only what kubectl looks for: that PATCH accepts fieldValidation and dryRun."""
    group, _, version = api_version.rpartition("/")
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("fieldValidation", "dryRun")]
    paths = {}
    for kind in kinds:
        scope = "/namespaces/{namespace}" if kind.namespaced else ""
        of = {"group": group, "version": version, "kind": kind.kind}
        operation = {"parameters": parameters, "x-kubernetes-group-version-kind": of, "responses": {}}
        paths[f"/{_root(api_version)}{scope}/{kind.plural}/{{name}}"] = {"patch": operation}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.35.0"}, "paths": paths}
