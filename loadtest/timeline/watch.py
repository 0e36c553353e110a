"""What a service does while it is under load: GET /status once a second, and the memory of its processes."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from loadtest.client import Target
from loadtest.memory import processes_of, resident_mib

_EVERY_S = 1.0
_TIMEOUT_S = 10.0
_RUNNING = "RUNNING"


class ModelState(BaseModel):
    """The streams of a model at the ingress replica that answered. stream_limit: None without a limit."""

    model_config = ConfigDict(frozen=True)

    streams: int
    stream_limit: float | None
    queue: int
    expected_wait_s: float


class ServiceState(BaseModel):
    """An answer of GET /status.

    models: by name. replicas: how many of each deployment are in which state; None if the answer did not tell.
    """

    model_config = ConfigDict(frozen=True)

    models: dict[str, ModelState]
    replicas: dict[str, dict[str, int] | None]

    def running(self, deployment: str) -> int | None:
        """Return the number of running replicas, or None if it is not known."""
        replicas = self.replicas.get(deployment)
        return None if replicas is None else replicas.get(_RUNNING, 0)


class Sample(BaseModel):
    """The service at one moment, in seconds since the run began.

    state: None if GET /status had no answer. memory_mib: the resident memory of each process, by its id.
    """

    model_config = ConfigDict(frozen=True)

    at_s: float
    state: ServiceState | None
    memory_mib: dict[int, float]


class _Deployment(BaseModel):
    replicas: dict[str, int] | None


class _Model(ModelState):
    name: str
    talker: _Deployment


class _Answer(BaseModel):
    models: list[_Model]
    codec_decoder: _Deployment
    codec_encoder: _Deployment | None


class Watch:
    """Looks at a service again and again. processes: the names of all processes seen, by id.

    has_status: whether the server answers GET /status as this project's service does.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self.processes = dict[int, str]()
        self.samples = list[Sample]()
        self.has_status = self._state() is not None

    def look_until(self, stop: threading.Event) -> None:
        """Add a sample a second."""
        while not stop.is_set():
            sample = self.look()
            self.samples.append(sample)
            stop.wait(max(sample.at_s + _EVERY_S - time.time(), 0.0))

    def look(self) -> Sample:
        """Return the state of the service now. Its moment is an epoch second."""
        at_s = time.time()
        memory = resident_mib(processes_of(str(self._http.base_url)))
        for pid, (name, _) in memory.items():
            # A Ray worker gets its name after its start, and while it is busy, a dot and a method follow the name.
            if pid not in self.processes or not name.startswith(f"{self.processes[pid]}."):
                self.processes[pid] = name
        return Sample(
            at_s=at_s,
            state=self._state() if self.has_status else None,
            memory_mib={pid: mib for pid, (_, mib) in memory.items()},
        )

    def _state(self) -> ServiceState | None:
        try:
            answer = _Answer.model_validate_json(self._http.get("/status").raise_for_status().content)
        except (httpx.HTTPError, ValidationError):
            return None
        models = {model.name: ModelState.model_validate(model.model_dump()) for model in answer.models}
        replicas = {f"talker of {model.name}": model.talker.replicas for model in answer.models}
        replicas["codec decoder"] = answer.codec_decoder.replicas
        if answer.codec_encoder is not None:
            replicas["codec encoder"] = answer.codec_encoder.replicas
        return ServiceState(models=models, replicas=replicas)


@contextmanager
def watching(target: Target) -> Iterator[Watch]:
    """Look once a second within the context, in a thread."""
    headers = {} if target.api_key is None else {"Authorization": f"Bearer {target.api_key}"}
    stop = threading.Event()
    with (
        httpx.Client(base_url=target.url, headers=headers, timeout=_TIMEOUT_S, trust_env=False) as http,
        ThreadPoolExecutor(1) as pool,
    ):
        watch = Watch(http)
        looking = pool.submit(watch.look_until, stop)
        try:
            yield watch
        finally:
            stop.set()
            looking.result()
