"""A locust file for exploring by hand with locust's web page. It is a closed loop, so its figures do not compare
(see arrivals.py).

Locust brings gevent, which needs an environment of its own:

python3 -m venv .venv-locust && .venv-locust/bin/pip install locust numpy
PYTHONPATH=. .venv-locust/bin/locust -f loadtest/locustfile.py --host http://127.0.0.1:8000

Locust's own response time of a stream ends at the headers, so the events "first audible" and "whole" are added.
"""

import time

import numpy as np
from locust import HttpUser, between, events, task

from loadtest.pcm_meter import PcmMeter
from loadtest.texts import LANGUAGES, draw

_SPEECH = "/v1/audio/speech"


class Caller(HttpUser):  # type: ignore[misc]  # locust is not installed where types are checked
    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        self.rng = np.random.default_rng()
        self.voice = self.client.get("/v1/audio/voices").json()["voices"][0]

    @task  # type: ignore[untyped-decorator]  # of locust, as above
    def speak(self) -> None:
        body = {"model": "tts-1", "voice": self.voice, "response_format": "pcm"}
        meter, started = PcmMeter(0.01), time.perf_counter()
        text = draw(self.rng, LANGUAGES).words
        sent = self.client.post(_SPEECH, json=body | {"input": text}, stream=True, name="headers", catch_response=True)
        with sent as answer:
            if not answer.ok:
                return
            for data in answer.iter_content(chunk_size=None):
                meter.receive(data, time.perf_counter() - started)
        self._fire("whole", time.perf_counter() - started, meter)
        if meter.audible is not None:
            self._fire("first audible", meter.audible[0], meter)

    def _fire(self, name: str, seconds: float, meter: PcmMeter) -> None:
        events.request.fire(
            request_type="AUDIO", name=name, response_time=1000 * seconds, response_length=len(meter.pcm),
            exception=None, context={},
        )  # fmt: skip
