"""/docs: Swagger UI. Its script and style are served from here, because a service may have no internet.

The files lie in the package fastapi-offline. Only its files are used.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

_PACKAGE = "fastapi_offline"
_SCRIPT, _STYLE, _ICON = "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon.png"
_MEDIA_TYPES = {_SCRIPT: "text/javascript", _STYLE: "text/css", _ICON: "image/png"}

# Paths of the page. A browser requests them without an API key.
DOCS_PATHS = frozenset({"/docs", *_MEDIA_TYPES})


def install_docs_page(app: FastAPI) -> None:
    """Add the page and its files to `app`, which was made with docs_url=None. /openapi.json does not list them."""
    assert app.docs_url is None, "FastAPI's own page at /docs would hide this one"
    assert app.openapi_url is not None, "the page shows the document at openapi_url"
    # The page's own address is .../docs, so these addresses also hold behind a proxy that adds a prefix.
    page = get_swagger_ui_html(
        openapi_url=app.openapi_url.removeprefix("/"),
        title=app.title,
        swagger_js_url=_SCRIPT.removeprefix("/"),
        swagger_css_url=_STYLE.removeprefix("/"),
        swagger_favicon_url=_ICON.removeprefix("/"),
        swagger_ui_parameters={"validatorUrl": None},  # a service of swagger.io
    ).body

    async def docs() -> HTMLResponse:
        return HTMLResponse(bytes(page))

    app.add_api_route("/docs", docs, include_in_schema=False)
    for path in _MEDIA_TYPES:
        _install_file(app, path)


def _install_file(app: FastAPI, path: str) -> None:
    async def file() -> FileResponse:
        return FileResponse(_files() / path.rpartition("/")[2], media_type=_MEDIA_TYPES[path])

    app.add_api_route(path, file, include_in_schema=False)


@cache
def _files() -> Path:
    """Return the directory of the package's files on this machine. The application may have been built on another."""
    spec = find_spec(_PACKAGE)
    assert spec is not None, "pyproject.toml requires fastapi-offline"
    assert spec.origin is not None, "fastapi-offline lies in a directory"
    return Path(spec.origin).parent / "static"
