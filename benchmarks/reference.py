"""Time the reference (PyPI qwen-tts 0.1.1); print a JSON line per batch.

The python of the reference's environment runs this file as a script. It has the standard library, torch and the
reference, and cannot import `benchmarks`.

python benchmarks/reference.py DIRECTORY DTYPE FRAMES BATCH...
"""

import json
import resource
import statistics
import sys
import time
from typing import Any

import torch

TEXT = "The quick brown fox jumps over the lazy dog, and nobody in the village has ever seen it stumble."
_UNTIMED = 3


def main(checkpoint: str, dtype: str, frames: int, batches: list[int]) -> None:
    from qwen_tts import Qwen3TTSModel  # PyPI's

    model: Any = Qwen3TTSModel.from_pretrained(
        checkpoint, device_map="cpu", dtype=getattr(torch, dtype), attn_implementation="sdpa"
    )
    speaker = model.get_supported_speakers()[0]
    marks: list[float] = []
    # The last head is called once per frame, for the last group.
    last_head = model.model.talker.code_predictor.lm_head[-1]
    last_head.register_forward_hook(lambda *_: marks.append(time.perf_counter()))
    model.model.speech_tokenizer.decode = lambda encoded: ([torch.zeros(1).numpy() for _ in encoded], 24000)
    for batch in [1, *batches]:  # the first one is warm-up
        marks.clear()
        started = time.perf_counter()
        model.generate_custom_voice(
            [TEXT] * batch,
            speaker=[speaker] * batch,
            language=["auto"] * batch,
            max_new_tokens=frames + _UNTIMED + 2,  # the last frame is drawn but not read
            do_sample=False,
            subtalker_dosample=False,
        )
        times = [after - before for before, after in zip(marks[_UNTIMED:], marks[_UNTIMED + 1 :], strict=False)]
        assert len(times) == frames, "a stream ended by itself: other random weights are needed"
        found = {
            "name": f"reference {dtype}", "batch": batch, "ms_per_frame": 1000 * statistics.median(times),
            "first_frame_ms": 1000 * (marks[0] - started), "frames": len(times),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }  # fmt: skip
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(batch) for batch in sys.argv[4:]])
