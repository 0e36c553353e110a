"""Every error that this library raises deliberately.

    QwenTTSError
    ├── InvalidRequest (ValueError)     the caller's input is wrong; `param` names the field
    ├── CheckpointError (ValueError)    files are missing, malformed or contradict each other
    │   └── ConfigError                 a key of config.json is missing or has an impossible value
    ├── UnsupportedError (ValueError)   this machine or this model cannot do what the caller wants
    ├── Overloaded                      the queue is full; retry after `retry_after_s`
    ├── RequestFailed                   the model cannot compute this request; the same request would fail again
    └── EngineStopped                   the engine failed or was closed while a request was running

All arguments are positional and kept in `args`, so every error survives pickling between processes.
"""


class QwenTTSError(Exception):
    """Root of the tree."""


class InvalidRequest(QwenTTSError, ValueError):
    """The caller's input is wrong. `param` is the public name of the field, `code` a stable word for programs."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param, code)
        self.message = message
        self.param = param
        self.code = code

    def __str__(self) -> str:
        return self.message


class CheckpointError(QwenTTSError, ValueError):
    """The files of a checkpoint directory are missing, malformed or do not match its config."""


class ConfigError(CheckpointError):
    """A key of config.json is missing or has an impossible value."""


class UnsupportedError(QwenTTSError, ValueError):
    """The machine (no GPU, a missing package) or the model type cannot do what the caller wants."""


class Overloaded(QwenTTSError):
    """The waiting queue is full."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class RequestFailed(QwenTTSError):
    """The model cannot compute this request, although it computes others. To send it again does not help."""


class EngineStopped(QwenTTSError):
    """The engine failed or was closed while the request was running."""
