"""Audio as bytes: encoding to file formats, tempo and sample rate, and the joining of pieces with pauses.

The input is always 16-bit PCM. Nothing here knows requests or HTTP. The codec of Qwen3-TTS belongs in `qwen_tts`, and
the decision which format a client receives belongs in `speech` and `protocols`.
"""
