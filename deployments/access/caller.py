"""The caller: the API key by which a request comes. The gate finds it once for each connection."""

from dataclasses import dataclass


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


# The caller of a service without API keys.
EVERYONE = Caller(None, all_voices=True)
