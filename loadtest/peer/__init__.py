"""The stand-in for a peer server (server.py), and its environment with PyPI's qwen-tts (environment.py).

Figures that other projects have published belong in `benchmarks` and docs/benchmarks.md.
"""
