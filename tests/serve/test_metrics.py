"""The metrics that a Prometheus server reads after some requests."""

import time

import httpx
import ray

from tests.serve.calls import PATIENCE_S
from tests.serve.conftest import CUSTOM, Service


def scraped() -> dict[str, float]:
    """Return the samples of this project's metrics from the node's exporter, with labels in the name."""
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]  # no types in Ray
    text = httpx.get(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=PATIENCE_S, trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("ray_qwen_tts_")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def total(samples: dict[str, float], name: str, label: str) -> float:
    return sum(value for key, value in samples.items() if key.startswith(f"ray_qwen_tts_{name}{{") and label in key)


def test_streams_and_steps_are_counted(service: Service) -> None:
    model = f'model="{CUSTOM}"'
    least = {
        "streams_total": 3, "audio_s_total": 3 * 6 * 0.08 - 0.001, "rtf_count": 3, "ttfa_ms_count": 3,
        "chunk_gap_ms_count": 3, "step_ms_count": 18, "step_rows_count": 18, "queue_wait_ms_count": 3,
        "edge_wait_ms_count": 3, "prefixes_reused_total": 2, "prefix_rows_reused_total": 2 * 16,
    }  # fmt: skip
    before = scraped()
    body = {
        "input": "Count me.",
        "model": CUSTOM,
        "voice": "ryan",
        "instructions": "Count them calmly.",
        "max_new_tokens": 6,
    }
    with service.client() as client:
        for seed in range(3):
            client.post("/v1/audio/speech", json=body | {"seed": seed}).raise_for_status()
        assert client.post("/v1/audio/speech", json=body | {"language": "klingon"}).status_code == 400

    deadline = time.monotonic() + PATIENCE_S
    while True:
        now = scraped()
        grown = {name: total(now, name, model) - total(before, name, model) for name in least}
        ends = {
            reason: total(now, "streams_total", label) - total(before, "streams_total", label)
            for reason, label in (("length", 'finish_reason="length"'), ("refused", 'finish_reason="refused"'))
        }
        if all(grown[name] >= least[name] for name in least) and all(ends.values()):
            break
        assert time.monotonic() < deadline, (grown, ends)
        time.sleep(1.0)
    assert any(key.startswith("ray_qwen_tts_decoder_requests_waiting{") for key in now)
    while any(total(scraped(), name, "") for name in ("slots_in_use", "decoder_slots_in_use")):
        assert time.monotonic() < deadline
        time.sleep(1.0)
