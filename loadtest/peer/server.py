"""A stand-in for the popular FastAPI wrappers of PyPI's qwen-tts 0.1.1: one lock around the model, whole files.

It is none of those servers. The python of the reference's environment (see environment.py) runs this file as a script:

python loadtest/peer/server.py CHECKPOINT --port 8001 [--dtype bfloat16]

POST /v1/audio/speech accepts `input`, `voice`, `response_format` (pcm or wav) and two parameters of the reference,
`language` and `max_new_tokens`. It ignores other fields, as the wrappers do. torch uses all threads.
"""

import argparse
import asyncio
import io
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Response


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    from qwen_tts import Qwen3TTSModel  # the reference's

    model: Any = Qwen3TTSModel.from_pretrained(
        str(arguments.checkpoint), device_map="cpu", dtype=getattr(torch, arguments.dtype), attn_implementation="sdpa"
    )
    _speak(model, {"input": "One.", "max_new_tokens": 4})  # the first call is slower: the measured ones are not
    uvicorn.run(_app(model), host="127.0.0.1", port=arguments.port, log_level="warning")


def _app(model: Any) -> FastAPI:  # noqa: ANN401  # an untyped package
    app, lock = FastAPI(), asyncio.Lock()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.get("/v1/audio/voices")
    async def voices() -> dict[str, list[str]]:
        return {"voices": list(model.get_supported_speakers())}

    @app.post("/v1/audio/speech")
    async def speech(body: dict[str, Any]) -> Response:
        if body.get("response_format", "wav") not in ("pcm", "wav"):
            raise HTTPException(400, "response_format must be pcm or wav")
        async with lock:
            pcm, rate_hz = await asyncio.to_thread(_speak, model, body)
        if body.get("response_format") == "pcm":
            return Response(pcm, media_type="audio/pcm")
        return Response(_wav(pcm, rate_hz), media_type="audio/wav")

    return app


def _speak(model: Any, body: Mapping[str, Any]) -> tuple[bytes, int]:  # noqa: ANN401
    """Return 16-bit PCM and its sample rate in Hz."""
    options = {"max_new_tokens": body["max_new_tokens"]} if "max_new_tokens" in body else {}
    speaker = body.get("voice") or model.get_supported_speakers()[0]
    wavs, rate_hz = model.generate_custom_voice(
        body["input"], speaker=speaker, language=body.get("language", "auto"), **options
    )
    return (np.clip(wavs[0], -1, 1) * 32767).astype("<i2").tobytes(), rate_hz


def _wav(pcm: bytes, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
