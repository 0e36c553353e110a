"""The evaluation of speech: `qwen-tts evaluate` measures a checkpoint, a service or recordings.

Here are the test cases, recognition of words, speaker similarity, quality scores and the report. All audio is at
RATE_HZ. Load and latency are measured by `loadtest`, the speed of the engine by `benchmarks`.
"""

RATE_HZ = 24000
