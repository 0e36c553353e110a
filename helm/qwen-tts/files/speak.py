"""`helm test`: speak with every model of the service, and judge the audio. Arguments: URL, seconds to wait for it.

Only the standard library. QWEN_TTS_API_KEY is sent where it is set.
"""

import array
import io
import json
import math
import os
import sys
import time
import urllib.error
import urllib.request
import wave

TEXT = "One two three four five six seven."
# Seven words take two to four seconds.
SHORTEST_S, LONGEST_S = 1.0, 20.0
# The quietest speech that is accepted, as a part of full scale. Noise is far below it, speech is at 0.02 to 0.2.
QUIETEST = 0.003
# Widths of speaker embeddings (1.7B, 0.6B, the demo): a voice that needs no recording.
WIDTHS = (2048, 1024, 256)


def request(url: str, body: dict[str, object] | None = None) -> bytes:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("QWEN_TTS_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=120) as answer:
        content: bytes = answer.read()
        return content


def wait_ready(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            request(f"{url}/readyz")
            return
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{url} was not ready within {seconds} s: {error}")
        time.sleep(2)


def voices(url: str, model: dict[str, str]) -> list[dict[str, object]]:
    """Fields that make `model` speak; the first that it takes counts."""
    if model["type"] == "voice_design":
        return [{"instructions": "A calm, low voice."}]
    if model["type"] == "base":
        return [{"speaker_embedding": [0.01] * width} for width in WIDTHS]
    known = json.loads(request(f"{url}/v1/audio/voices"))["data"]
    return [{"voice": voice["id"]} for voice in known if voice.get("model") == model["id"]][:1]


def speak(url: str, model: dict[str, str]) -> bytes:
    refusal = "it has no voice"
    for voice in voices(url, model):
        body = {"model": model["id"], "input": TEXT, "language": "english", "seed": 7, "response_format": "wav"}
        try:
            return request(f"{url}/v1/audio/speech", {**body, **voice, "stream": False})
        except urllib.error.HTTPError as error:
            refusal = f"{error.code} {error.read().decode(errors='replace')[:500]}"
    sys.exit(f"{model['id']} did not speak: {refusal}")


def judge(name: str, wav: bytes) -> None:
    with wave.open(io.BytesIO(wav)) as file:
        samples = array.array("h", file.readframes(file.getnframes()))
        seconds = file.getnframes() / file.getframerate()
    loudness = math.sqrt(sum(sample * sample for sample in samples) / max(1, len(samples))) / 32768
    print(f"{name}: {seconds:.2f} s, loudness {loudness:.4f}", flush=True)
    if not SHORTEST_S <= seconds <= LONGEST_S:
        sys.exit(f"{name}: {seconds:.2f} s is no plausible duration of {TEXT!r}")
    if loudness < QUIETEST:
        sys.exit(f"{name}: silence")


def main() -> None:
    url, seconds = sys.argv[1], float(sys.argv[2])
    wait_ready(url, seconds)
    for model in json.loads(request(f"{url}/v1/models"))["data"]:
        judge(model["id"], speak(url, model))
    print("passed")


try:
    main()
except OSError as error:
    sys.exit(f"the service could not be asked: {error}")
