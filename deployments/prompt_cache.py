"""What a replica remembers of the voice store: prompts, which never change under their path."""

import threading
from collections import OrderedDict


class PromptCache:
    """The prompts used last, of `limit` bytes together. A larger one is not kept. Threads may call at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._prompts: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> bytes | None:
        with self._lock:
            if path not in self._prompts:
                return None
            self._prompts.move_to_end(path)
            return self._prompts[path]

    def put(self, path: str, prompt: bytes) -> None:
        if len(prompt) > self._limit:
            return
        with self._lock:
            self._used += len(prompt) - len(self._prompts.pop(path, b""))
            self._prompts[path] = prompt
            while self._used > self._limit:
                self._used -= len(self._prompts.popitem(last=False)[1])
