"""Published figures of other servers of Qwen3-TTS, each with its source. None was measured here."""

# Requests per second -> 95th percentile of the time to the first audible audio, ms. Qwen3-TTS 1.7B CustomVoice on one
# H100 SXM, 1088 prompts of Seed-TTS, open loop. The author, Nari Labs, is one of the compared servers.
RATES_SOURCE = "nari-labs/benchmarks, reports/Qwen3-TTS-1.7B-CustomVoice; 1 x H100, p95 of the first audible audio"
RATES: dict[str, dict[int, float]] = {
    "Nari": {1: 26.5, 2: 27.2, 4: 31.6, 6: 32.1, 8: 33.1, 10: 34.1, 12: 62.2, 16: 69.5, 20: 77.2},
    "vLLM-Omni": {1: 56.8, 2: 63.0, 4: 79.3, 6: 93.5, 8: 117.9, 10: 135.8, 12: 182.5, 16: 233.7, 20: 396.9},
    "SGLang-Omni": {1: 120.9, 2: 163.8, 4: 182.7, 6: 273.7, 8: 385.4, 10: 660.2, 12: 2381.7},
}

# (server, figure, hardware and model, source)
OTHERS: tuple[tuple[str, str, str, str], ...] = (
    (
        "SGLang-Omni",
        "first playable audio 21.3 ms p50 at 1 a second, 33.3 p50 and 47.5 p95 at 20",
        "H100, 1.7B CustomVoice",
        "docs/benchmarks/data/2026-09-24, commit 8521cf68",
    ),
    (
        "vLLM-Omni",
        "first packet 64, 119, 425 ms at 1, 4, 10 streams; RTF 0.16 at 1",
        "H200, 1.7B CustomVoice",
        "docs/design/qwen3_omni_tts_performance_optimization.md",
    ),
    (
        "vLLM-Omni",
        "first packet 71, 269, 451, 637, 1128 ms at 1, 8, 16, 32, 64 streams; 42.9 s of audio a second at 64",
        "2 x H20, clones",
        "vllm-project.github.io, 2026-06-23",
    ),
    ("vLLM-Omni", "67.7 s of audio a second at 64 streams, 111.9 with the change", "H100, Base", "pull request 7781"),
    (
        "Triton, TensorRT codec",
        "first audio 73 ms at 1 stream, 374 at 32; 7.34 requests a second",
        "A6000",
        "qwen3_tts_nv",
    ),
    ("faster-qwen3-tts", "3.30 times real time, first audio 241 ms, one stream", "H100, 1.7B", "README"),
    ("faster-qwen3-tts", "4.22 times real time, first audio 174 ms, one stream", "RTX 4090, 1.7B", "README"),
    ("qwentts.cpp", "15.6, 48, 63, 92 times real time at 1, 5, 10, 20 streams", "RTX PRO 6000, 1.7B Q4", "issue 27"),
)
