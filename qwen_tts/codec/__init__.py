"""The codec: samples to codes (encoder, quantizer) and codes to samples (decoder), streaming with carried state.

Generating codes belongs in `models` and `engine`; file formats belong in `qwen_tts/audio.py` and in the service.
"""
