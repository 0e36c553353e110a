"""What a Prometheus server finds after some requests."""

import time

import httpx
import pytest
import ray

from tests.serve.conftest import CUSTOM, Service

PATIENCE_S = 60.0


def scraped() -> dict[str, float]:
    """Samples of our own metrics, labels in the name, of the node's exporter."""
    (node,) = ray.nodes()
    text = httpx.get(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10, trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("ray_qwen_tts_")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def total(samples: dict[str, float], name: str, label: str) -> float:
    return sum(value for key, value in samples.items() if key.startswith(f"ray_qwen_tts_{name}{{") and label in key)


@pytest.mark.timeout(180)
def test_streams_and_steps_are_counted(service: Service) -> None:
    with service.client() as client:
        for seed in range(3):
            body = {"input": "Count me.", "model": CUSTOM, "voice": "ryan", "seed": seed, "max_new_tokens": 6}
            client.post("/v1/audio/speech", json=body).raise_for_status()
    model = f'model="{CUSTOM}"'
    deadline = time.monotonic() + PATIENCE_S
    while total(scraped(), "ttfa_ms_count", model) < 3:
        assert time.monotonic() < deadline, sorted(scraped())
        time.sleep(1.0)
    samples = scraped()
    assert total(samples, "streams_total", model) >= 3
    assert total(samples, "audio_s_total", model) >= 3 * 6 * 0.08 - 0.001
    assert total(samples, "rtf_count", model) >= 3
    assert total(samples, "chunk_gap_ms_count", model) >= 3, "six frames leave in more than one chunk"
    assert total(samples, "step_ms_count", model) >= 18
    assert total(samples, "queue_wait_ms_count", model) >= 3
    assert total(samples, "slots_in_use", model) == 0
