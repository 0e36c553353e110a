"""Who sends a request: found once, at the gate, and carried in the connection's state."""

from dataclasses import dataclass

from starlette.requests import HTTPConnection


@dataclass(frozen=True)
class Caller:
    """`name` is that of the API key, None where none are configured. A limit of None is no limit."""

    name: str | None
    all_voices: bool
    max_concurrent: int | None = None
    requests_per_minute: int | None = None

    def sees(self, owner: str | None) -> bool:
        """Whether a stored voice or preview of `owner` exists for this caller."""
        return self.all_voices or self.name == owner


# Of a service without keys.
EVERYONE = Caller(None, all_voices=True)


def caller_of(connection: HTTPConnection) -> Caller:
    """Of a request or a WebSocket that passed the gate (AttributeError for one that did not)."""
    caller: Caller = connection.state.caller
    return caller
