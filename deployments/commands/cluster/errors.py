"""What `qwen-tts cluster` says instead of a traceback.

ClusterError
├── ApiError          the API server refused (status, message)
│   ├── Conflict      fields belong to other field managers
│   └── NotFound
├── Unreachable       it did not answer
├── BadManifest       a file that cannot be applied, with its line
└── Stuck             the service will not become ready by waiting
"""


class ClusterError(Exception):
    """Base of all; its text is one for the user."""


class ApiError(ClusterError):
    """The API server answered with an error.

    status: HTTP status; detail: the server's own message.
    """

    def __init__(self, message: str, status: int, detail: str) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class NotFound(ApiError):
    """404: the object, its namespace or its API is not there."""


class Conflict(ApiError):
    """409 of a server-side apply. owned: (field, what the server says of its manager)."""

    def __init__(self, message: str, status: int, detail: str, owned: list[tuple[str, str]]) -> None:
        super().__init__(message, status, detail)
        self.owned = owned


class Unreachable(ClusterError):
    """No answer: refused, timed out, reset, not TLS, or not a Kubernetes API."""


class BadManifest(ClusterError):
    """All faults of one file, each with its line."""


class Stuck(ClusterError):
    """The service is not ready, and why."""
