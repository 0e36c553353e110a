"""Invented answers of GET /status."""

from collections.abc import Mapping


def status(*, streams: int, talkers: Mapping[str, int] | None) -> dict[str, object]:
    """Return the answer of a service with one model and no codec encoder."""

    def deployment(replicas: Mapping[str, int] | None) -> dict[str, object]:
        return {
            "status": "HEALTHY", "replicas": replicas, "running": 1, "capacity": 8, "waiting": 0,
            "least_headroom_s": None,
        }  # fmt: skip

    model = {
        "name": "demo", "streams": streams, "stream_limit": 8.5, "queue": 2, "expected_wait_s": 0.5, "refusals": {},
        "talker": deployment(talkers),
    }  # fmt: skip
    return {"models": [model], "codec_decoder": deployment({"RUNNING": 1}), "codec_encoder": None}
