"""Engine and codec decoder in one process, taking turns: the baseline for the overhead of a service."""

import time
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from qwen_tts.audio import to_pcm16
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.state import DecoderState
from qwen_tts.engine.engine import Engine
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.sequence import Sequence, chunk_sizes
from qwen_tts.request import SpeechRequest


@dataclass
class Stream:
    """The times, in seconds since the start, at which a stream was due, had its first audio and its last; and the total
    time without audio of a listener who starts with the first audio."""

    due_s: float
    sequence: Sequence
    sizes: Iterable[int]
    wanted: int
    first_s: float = 0.0
    last_s: float = 0.0
    late_s: float = 0.0
    frames: int = 0
    slot: int | None = None

    def receive(self, now: float, frames: int) -> None:
        self.first_s = self.first_s or now
        self.late_s += max(0.0, now - self.first_s - self.late_s - self.frames * FRAME_S if self.frames else 0.0)
        self.frames += frames
        self.last_s = now

    @property
    def finished(self) -> bool:
        return self.sequence.finished and self.frames == len(self.sequence.frames)


@dataclass
class Bare:
    engine: Engine
    decoder: CodecDecoder
    schedule: tuple[int, ...]
    slots: int
    turns: list[tuple[int, float]] = field(default_factory=list)  # of the last call: running streams, seconds

    def __post_init__(self) -> None:
        self._state = DecoderState(self.decoder, self.slots)
        self._device = self.decoder.pre_conv.conv.weight.device

    @torch.inference_mode()
    def speak(self, requests: Iterable[tuple[float, SpeechRequest]]) -> list[Stream]:
        """Run requests, each with its arrival time in seconds, in order of arrival."""
        waiting, streams, running = deque(requests), list[Stream](), list[Stream]()
        self.turns = []
        started = time.perf_counter()
        while waiting or running:
            begun = time.perf_counter() - started
            while waiting and waiting[0][0] <= begun:
                due, request = waiting.popleft()
                sizes = chunk_sizes(self.schedule)
                running.append(Stream(due, self.engine.add(request), sizes, next(sizes)))
                streams.append(running[-1])
            if not running:
                time.sleep(waiting[0][0] - begun)
                continue
            self.engine.step()
            self._decode(running, started)
            self.turns.append((self.engine.running, time.perf_counter() - started - begun))
            running = [stream for stream in running if not stream.finished]
        return streams

    def _decode(self, streams: list[Stream], started: float) -> None:
        """Decode all due chunks; chunks of equal length are decoded together."""
        due: dict[int, list[Stream]] = defaultdict(list)
        for stream in streams:
            there = len(stream.sequence.frames) - stream.frames
            if there >= stream.wanted or (stream.sequence.finished and there):
                due[min(there, stream.wanted)].append(stream)
        for size, members in due.items():
            slots = [self._lease(stream) for stream in members]
            frames = [stream.sequence.frames[stream.frames : stream.frames + size] for stream in members]
            carry = self._state.gather(slots)
            samples = self.decoder(torch.tensor(frames, device=self._device), carry)
            self._state.scatter(slots, carry)
            for stream, row in zip(members, samples.float().cpu().numpy(), strict=True):
                to_pcm16(row)
                stream.receive(time.perf_counter() - started, size)
                stream.wanted = next(iter(stream.sizes))
                if stream.finished:
                    self._state.release(slots[members.index(stream)])

    def _lease(self, stream: Stream) -> int:
        if stream.slot is None:
            stream.slot = self._state.lease()
        assert stream.slot is not None, "the decoder has fewer slots than the engine"
        return stream.slot
