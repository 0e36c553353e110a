"""The request handlers of the tests' API server.

Every supported request behaves as documented (Kubernetes API concepts). JSON patches and the directives of strategic
merges are not supported, and are refused.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import yaml
from aiohttp import web

from tests.deployments.commands.cluster import discovery, protobuf
from tests.deployments.commands.cluster.fields import Json, merge_patch
from tests.deployments.commands.cluster.store import Kind, Refused, Store, matches

TOKEN = "a-token-of-the-tests"
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

_PATCHES = {
    "application/apply-patch+yaml",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
}

Send = Callable[[str, Json], Awaitable[None]]


class Handlers:
    """logs, forbidden: as ApiServer has them; requests: all that came; faults: of the handlers themselves;
    longest_watch_s: after which a watch is ended, whatever its client asked for, as a server may."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.logs: dict[tuple[str, str, bool], list[str]] = {}
        self.forbidden: set[tuple[str, str]] = set()
        self.requests: list[str] = []
        self.faults: list[Exception] = []
        self.longest_watch_s = 300.0

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._errors])
        app.add_routes(discovery.routes(self.store.kinds))
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self._log)
        for root in ("/api/{version:v1}", "/apis/{group}/{version}"):
            for scope in (root, root + "/namespaces/{namespace}"):
                app.router.add_route("*", scope + "/{plural}", self._collection)
                app.router.add_route("*", scope + "/{plural}/{name}", self._object)
                app.router.add_route("*", scope + "/{plural}/{name}/{subresource:status}", self._object)
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        try:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            response: web.StreamResponse = await handler(request)
            return response
        except web.HTTPNotFound:
            return _status(Refused(404, "NotFound", "the server could not find the requested resource"))
        except Refused as refused:
            return _status(refused)
        except Exception as fault:
            self.faults.append(fault)
            raise

    def _kind_of(self, request: web.Request, verb: str) -> Kind:
        group, plural = request.match_info.get("group"), request.match_info["plural"]
        api_version = request.match_info["version"] if group is None else f"{group}/{request.match_info['version']}"
        found = next(
            (kind for kind in self.store.kinds if (kind.api_version, kind.plural) == (api_version, plural)), None
        )
        if found is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        if (verb, plural) in self.forbidden:
            namespace = request.match_info.get("namespace", "")
            raise Refused(
                403,
                "Forbidden",
                f'{plural} is forbidden: User "tester" cannot {verb} resource "{plural}" in API group "{group or ""}" '
                f'in the namespace "{namespace}"',
            )
        return found

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        watches = request.query.get("watch") in ("true", "1")
        kind = self._kind_of(request, "watch" if watches else {"GET": "list", "POST": "create"}.get(request.method, ""))
        namespace = request.match_info.get("namespace", "")
        labels, fields = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        if request.method == "POST":
            body = await _body(request)
            writer = (_manager(request), "Update", "")
            return _json(self.store.create(kind, namespace, body, writer, _strict(request), _dry(request)), 201)
        if request.method != "GET":
            raise Refused(405, "MethodNotAllowed", f"{request.method} of a collection")
        if watches:
            return await self._watch(request, kind, namespace, labels, fields)
        items = self.store.find(kind, namespace, labels, fields)
        if "as=PartialObjectMetadataList" in request.headers.get("Accept", ""):
            items = [{"metadata": body["metadata"]} for body in items]
        metadata = {"resourceVersion": str(self.store.version)}
        return _json({"apiVersion": kind.api_version, "kind": f"{kind.kind}List", "metadata": metadata, "items": items})

    async def _object(self, request: web.Request) -> web.Response:
        kind = self._kind_of(request, _VERBS[request.method])
        name, subresource = request.match_info["name"], request.match_info.get("subresource", "")
        namespace = request.match_info.get("namespace", "")
        writer = (_manager(request), "Update", subresource)
        strict, dry = _strict(request), _dry(request)
        match request.method:
            case "GET":
                return _json(self.store.get(kind, namespace, name))
            case "DELETE":
                return _json(self.store.delete(kind, namespace, name))
            case "PUT":
                return _json(self.store.replace(kind, namespace, name, await _body(request), writer, strict, dry))
        if request.content_type not in _PATCHES:
            raise Refused(415, "UnsupportedMediaType", f"the server does not know {request.content_type}")
        body = await _body(request)
        match request.content_type:
            case "application/apply-patch+yaml":
                is_new = kind.key(namespace, name) not in self.store
                force = request.query.get("force") == "true"
                now = self.store.apply(kind, namespace, name, body, writer[0], force, strict, dry)
                return _json(now, 201 if is_new else 200)
            case _:
                if "$" in json.dumps(list(_keys(body))):
                    raise Refused(415, "UnsupportedMediaType", "directives of strategic merge patches")
                patched = merge_patch(self.store.get(kind, namespace, name), body)
                return _json(self.store.replace(kind, namespace, name, patched, writer, strict, dry))

    async def _watch(
        self, request: web.Request, kind: Kind, namespace: str, labels: str, fields: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)

        async def send(type_: str, body: Json) -> None:
            if type_ in ("BOOKMARK", "ERROR") or matches(body, labels, fields):
                await response.write(json.dumps({"type": type_, "object": body}).encode() + b"\n")

        with contextlib.suppress(ConnectionResetError):  # the watching client has disconnected
            await self._send_changes(request.query, kind, namespace, send)
        return response

    async def _send_changes(self, query: Mapping[str, str], kind: Kind, namespace: str, send: Send) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + min(float(query.get("timeoutSeconds", 300)), self.longest_watch_s)
        seen = int(query.get("resourceVersion") or 0)
        if 0 < seen < self.store.forgotten:
            await send("ERROR", _status_body(Refused(410, "Expired", f"too old resource version: {seen}")))
            return
        bookmark: Json = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {}}
        if query.get("sendInitialEvents") == "true":
            for body in self.store.find(kind, namespace):
                await send("ADDED", body)
            seen = self.store.version
            bookmark["metadata"] = {"annotations": {"k8s.io/initial-events-end": "true"}, "resourceVersion": str(seen)}
            await send("BOOKMARK", bookmark)
        while True:
            for change in list(self.store.changes_after(seen, kind, namespace)):
                await send(change.type, change.body)
            if self.store.version > seen and query.get("allowWatchBookmarks") == "true":
                await send("BOOKMARK", bookmark | {"metadata": {"resourceVersion": str(self.store.version)}})
            seen = self.store.version
            if loop.time() >= end:
                return
            await self.store.next_change(end - loop.time())

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod, namespace, query = request.match_info["name"], request.match_info["namespace"], request.query
        body = self.store.get(self.store.kind("Pod"), namespace, pod)
        container = query.get("container") or body["spec"]["containers"][0]["name"]
        key = (pod, container, query.get("previous") == "true")
        if key not in self.logs:
            what = "previous terminated container" if key[2] else "container"
            raise Refused(400, "BadRequest", f'{what} "{container}" in pod "{pod}" is waiting to start')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        sent = max(0, len(self.logs[key]) - int(query.get("tailLines", 1_000_000)))
        with contextlib.suppress(ConnectionResetError):  # the following client has disconnected
            while True:
                lines = self.logs[key][sent:]
                sent += len(lines)
                await response.write("".join(f"{line}\n" for line in lines).encode())
                if query.get("follow") != "true" or self.store.kind("Pod").key(namespace, pod) not in self.store:
                    break
                await self.store.next_change(0.2)
        return response


def _keys(value: object) -> Any:
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from _keys(below)


async def _body(request: web.Request) -> Json:
    if request.content_type == protobuf.CONTENT_TYPE:
        return protobuf.secret(await request.read())
    try:
        body = yaml.safe_load(await request.text())  # JSON is YAML
    except yaml.YAMLError as error:
        raise Refused(400, "BadRequest", f"the object provided is unrecognized: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "BadRequest", "the object provided is no mapping")
    return body


def _manager(request: web.Request) -> str:
    return request.query.get("fieldManager") or request.headers.get("User-Agent", "unknown").split("/")[0]


def _strict(request: web.Request) -> bool:
    return request.query.get("fieldValidation") == "Strict"


def _dry(request: web.Request) -> bool:
    return request.query.get("dryRun") == "All"


def _json(body: Json, status: int = 200) -> web.Response:
    return web.json_response(body, status=status)


def _status(refused: Refused) -> web.Response:
    return web.json_response(_status_body(refused), status=refused.status)


def _status_body(refused: Refused) -> Json:
    body: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": refused.status}
    return body | {"reason": refused.reason, "message": refused.message, "details": {"causes": refused.causes}}
