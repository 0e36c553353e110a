"""Every error this library raises on purpose.

    QwenTTSError
    ├── InvalidRequest (ValueError)     the caller's input cannot be spoken; `param` names the field
    ├── CheckpointError (ValueError)    files that are missing, misshapen or contradict each other
    │   └── ConfigError                 a config.json key is missing or impossible
    ├── UnsupportedError (ValueError)   this machine or this model cannot do what was asked
    ├── Overloaded                      no room to queue; try again after `retry_after_s`
    └── EngineStopped                   the engine died or was closed under a running request

All arguments are positional and kept in `args`, so that every error survives pickling between processes.
"""


class QwenTTSError(Exception):
    """Root of the tree."""


class InvalidRequest(QwenTTSError, ValueError):
    """The caller's input is at fault. `param` is the public name of the field, `code` a stable machine word."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param, code)
        self.message = message
        self.param = param
        self.code = code

    def __str__(self) -> str:
        return self.message


class CheckpointError(QwenTTSError, ValueError):
    """A checkpoint directory does not hold what its config says."""


class ConfigError(CheckpointError):
    """A key of config.json is missing or has an impossible value."""


class UnsupportedError(QwenTTSError, ValueError):
    """The machine (no GPU, missing package) or the model type cannot do what was asked."""


class Overloaded(QwenTTSError):
    """The waiting queue is full."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class EngineStopped(QwenTTSError):
    """The engine failed or was closed while the request was running."""
