"""The errors of `qwen-tts cluster`; the user sees their text instead of a traceback.

ClusterError
├── ApiError          the API server answered with an error (status, message)
│   ├── Conflict      fields belong to other field managers
│   └── NotFound
├── Unreachable       the API server did not answer
├── BadManifest       a file that cannot be applied, with line numbers
└── Stuck             waiting will not make the service ready
"""


class ClusterError(Exception):
    """The base class. Its text is written for the user."""


class ApiError(ClusterError):
    """The API server answered with an error.

    status: HTTP status; detail: the server's own message.
    """

    def __init__(self, message: str, status: int, detail: str) -> None:
        assert status >= 400, f"HTTP status {status} is not an error"
        super().__init__(message)
        self.status = status
        self.detail = detail


class NotFound(ApiError):
    """404: the object, its namespace or its API is not there."""


class Conflict(ApiError):
    """409 of a server-side apply. owned: (field, the server's message about its manager)."""

    def __init__(self, message: str, status: int, detail: str, owned: list[tuple[str, str]]) -> None:
        assert owned, "a conflict that names no field cannot be explained"
        super().__init__(message, status, detail)
        self.owned = owned


class Unreachable(ClusterError):
    """No usable answer: connection refused, timed out or reset, no TLS, or not a Kubernetes API."""


class BadManifest(ClusterError):
    """All faults of one file, each with its line."""


class Stuck(ClusterError):
    """The service is not ready (or not gone); the text gives the causes."""
