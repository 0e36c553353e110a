"""The gate before every route: it checks the API key and the limits of that key."""

import logging
from contextlib import ExitStack

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.access.api_keys import ApiKeys
from deployments.access.caller import Caller
from deployments.access.limits import CallerLimits
from deployments.errors import Refusal, refusal_of
from deployments.http.docs_page import DOCS_PATHS
from deployments.http.errors import error_response
from deployments.settings import ApiKeyArgs
from qwen_tts.errors import InvalidRequest, Overloaded

log = logging.getLogger("ray.serve")

# Paths without a key: probes send none. Every other path, known or not, needs a key.
OPEN_PATHS = DOCS_PATHS | {"/healthz", "/readyz", "/openapi.json"}


class Gate:
    """The API keys of one ingress replica, and the counts for their limits. The constructor raises KeyFileError."""

    def __init__(self, args: ApiKeyArgs) -> None:
        self.keys = ApiKeys(args.file)
        self.keys.watch()
        self.limits = CallerLimits()
        log.log(logging.WARNING if args.file is None else logging.INFO, self.keys.describe())


class GateMiddleware:
    """Refuses connections without a valid API key, and connections beyond the limits of their key.

    A POST counts towards the limits until the end of its answer's body, a WebSocket until it closes. `caller_of`
    returns the caller of a connection that passed.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _route_path(scope) in OPEN_PATHS:
            return await self._app(scope, receive, send)
        with ExitStack() as under_way:
            try:
                connection = HTTPConnection(scope)
                caller = self._gate.keys.authenticate(connection.headers)
                connection.state.caller = caller
                if scope["type"] == "websocket" or scope["method"] == "POST":
                    under_way.enter_context(self._gate.limits.admit(caller))
            except (InvalidRequest, Overloaded) as refusal:
                return await refuse(refusal_of(refusal), scope, receive, send)
            return await self._app(scope, receive, send)


def caller_of(connection: HTTPConnection) -> Caller:
    """Return the caller of a request or a WebSocket that passed the gate."""
    caller: Caller = connection.state.caller
    return caller


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a refusal in place of a route. If the server cannot answer a WebSocket's upgrade, the client gets 403."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.message})
    else:
        await error_response(refusal)(scope, receive, send)


def _route_path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
