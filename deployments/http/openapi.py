"""The parts of /openapi.json that FastAPI does not know: bodies that it does not parse, errors, and API keys."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from deployments.http.bodies import FORM, JSON
from deployments.http.errors import ErrorAnswer
from deployments.http.gate import OPEN_PATHS

# Statuses of every route with a body.
BODY_ERRORS = (400, 408, 413, 415, 429, 500, 503)

# Statuses of every route that is not open: an X-Request-Id that is not valid, and an API key that is not known.
_GATE_ERRORS = (400, 401)

# The headers that carry an API key. If a service has keys, every route that is not open needs one of them.
_KEY_HEADERS: dict[str, dict[str, str]] = {
    "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key, if the service has keys."},
    "xi-api-key": {"type": "apiKey", "in": "header", "name": "xi-api-key", "description": "The same."},
}

_REFS = "#/components/schemas/"


class DocumentedAPI(FastAPI):
    """FastAPI with a complete /openapi.json.

    The definitions inside the schemas of bodies move to the place where references look for them. FastAPI's own answer
    422 is removed, because no route sends it.
    """

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            schemas = schema["components"]["schemas"]
            schema["components"]["securitySchemes"] = _KEY_HEADERS
            for path, operations in schema["paths"].items():
                if path not in OPEN_PATHS:
                    for operation in operations.values():
                        _document_the_gate(operation)
            for operation in (operation for path in schema["paths"].values() for operation in path.values()):
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    schemas.update(content["schema"].pop("$defs", {}))
                supposed = operation["responses"].get("422", {}).get("content", {}).get(JSON, {}).get("schema", {})
                if supposed.get("$ref") == f"{_REFS}HTTPValidationError":
                    del operation["responses"]["422"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
        assert self.openapi_schema is not None
        return self.openapi_schema


def _document_the_gate(operation: dict[str, Any]) -> None:
    # The empty entry means "no key": a service without keys is open.
    operation["security"] = [{}, *({header: []} for header in _KEY_HEADERS)]
    ours = {"$ref": f"{_REFS}ErrorAnswer"}
    for status in map(str, _GATE_ERRORS):
        documented = operation["responses"].get(status, {}).get("content", {}).get(JSON, {}).get("schema", ours)
        schema = ours if documented == ours else {"anyOf": [documented, ours]}
        description = HTTPStatus(int(status)).phrase
        operation["responses"][status] = {"description": description, "content": {JSON: {"schema": schema}}}


def json_body(kind: type[BaseModel], **examples: Mapping[str, object]) -> dict[str, Any]:
    """Return `openapi_extra` of a route whose body is a `kind`."""
    content = {
        "schema": kind.model_json_schema(ref_template=f"{_REFS}{{model}}"),
        "examples": {name.replace("_", " "): {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": True, "content": {JSON: content}}}


def form_body(audio: str, required: Mapping[str, str], optional: Mapping[str, str]) -> dict[str, Any]:
    """Return `openapi_extra` of a route whose body is a form with the file `audio` and texts with descriptions."""
    texts = {name: {"type": "string", "description": what} for name, what in (*required.items(), *optional.items())}
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {audio: {"type": "string", "format": "binary"}, **texts},
        "required": [audio, *required],
    }
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


def errors(*statuses: int, shape: type[BaseModel] = ErrorAnswer) -> dict[int | str, dict[str, Any]]:
    """Return `responses` of a route that answers errors with these statuses."""
    return {status: {"model": shape, "description": HTTPStatus(status).phrase} for status in statuses}


def files(description: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return `responses` of a route that answers 200 with bytes or events. OpenAPI 3.1 cannot describe events."""
    binary: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    content = {name: {} if name.startswith("text/") else binary for name in media_types}
    return {200: {"description": description, "content": content}}
