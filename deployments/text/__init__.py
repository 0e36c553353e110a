"""Pure functions on text: languages and their codes, numbers in words, and the splitting of long text.

Nothing here knows requests, voices or HTTP. Tokens and prompts belong in `qwen_tts`.
"""
