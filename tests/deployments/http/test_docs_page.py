"""/docs: the page shows /openapi.json and uses only files of this service."""

import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from deployments.http.docs_page import DOCS_PATHS, install_docs_page
from deployments.http.gate import OPEN_PATHS, Gate
from deployments.ingress import build_api
from deployments.settings import ApiKeyArgs, AppArgs
from deployments.speech.service import SpeechService
from deployments.wire.deployment_states import DeploymentStates


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(docs_url=None, redoc_url=None)
    install_docs_page(app)
    return TestClient(app)


def addresses(page: str) -> set[str]:
    return set(re.findall(r"""(?:href|src)="([^"]*)\"""", page)) | set(re.findall(r"""url: '([^']*)'""", page))


def test_the_page_names_no_other_host(client: TestClient) -> None:
    answer = client.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "//" not in re.sub(r"^\s*//.*$", "", answer.text, flags=re.MULTILINE)
    assert addresses(answer.text) == {
        "openapi.json",
        "docs/swagger-ui-bundle.js",
        "docs/swagger-ui.css",
        "docs/favicon.png",
    }


@pytest.mark.parametrize(
    ("path", "media_type", "content"),
    [
        ("/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8", b"SwaggerUIBundle"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8", b".swagger-ui"),
        ("/docs/favicon.png", "image/png", b"\x89PNG"),
    ],
)
def test_the_files_of_the_page_are_served(client: TestClient, path: str, media_type: str, content: bytes) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert content in answer.content


def test_the_application_has_the_page_and_its_document_does_not_list_it() -> None:
    args = AppArgs()
    handle: Any = None  # no request reaches an actor
    service = SpeechService(handle, handle, handle, args.ingress, args.voices, args.reference_audio)
    api = build_api(service, Gate(ApiKeyArgs()), DeploymentStates({}))
    assert not DOCS_PATHS & api.openapi()["paths"].keys()
    client = TestClient(api)
    assert {path for path in DOCS_PATHS if client.get(path).status_code == 200} == DOCS_PATHS


def test_a_browser_needs_no_key_for_the_page() -> None:
    assert DOCS_PATHS <= OPEN_PATHS
