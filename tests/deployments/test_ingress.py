"""What a replica of the ingress does before its first request."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import ingress
from deployments.settings import ApiKeyArgs, IngressArgs, ReferenceAudioArgs, TracingArgs, VoiceStoreArgs
from tests.deployments.loaded import ANY


async def test_the_replicas_are_found_before_the_first_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve needs the head node for the first call to a deployment, and the head may be away at the first request."""
    called = {name: asyncio.Event() for name in ("decoder", "encoder")}

    def handle(name: str) -> Any:
        async def describe() -> list[object]:
            called[name].set()
            return [ANY]

        return SimpleNamespace(describe=SimpleNamespace(remote=describe))

    nothing = SimpleNamespace(observe=lambda *_, **__: None, set=lambda *_, **__: None, inc=lambda *_, **__: None)
    made = SimpleNamespace(**dict.fromkeys(("Counter", "Gauge", "Histogram"), lambda *_: nothing))
    monkeypatch.setattr("deployments.metrics.metrics", made)
    monkeypatch.setattr(ingress, "start_inbox", lambda: None)
    monkeypatch.setattr(ingress, "hide_serves_access_log", lambda: None)
    replica = ingress.Ingress.__mro__[1]  # outside Serve's wrapper
    replica(
        handle("decoder"),
        {},
        handle("encoder"),
        IngressArgs(),
        VoiceStoreArgs(url=str(tmp_path)),
        ReferenceAudioArgs(),
        ApiKeyArgs(),
        TracingArgs(),
    )
    for event in called.values():
        await asyncio.wait_for(event.wait(), 10)
