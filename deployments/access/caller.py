"""The caller of a connection. The gate finds the caller once for each connection, by its API key."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """A caller. `name` is that of the API key, or None on a service without keys. A limit of None is no limit."""

    name: str | None
    all_voices: bool
    max_concurrent: int | None = None
    requests_per_minute: int | None = None

    def sees(self, owner: str | None) -> bool:
        """Return whether a stored voice, consent or preview of `owner` exists for this caller."""
        return self.all_voices or self.name == owner


# The caller of a service without API keys.
EVERYONE = Caller(None, all_voices=True)
