"""The command line `qwen-tts`: serving, speaking, API keys and clusters.

A command parses its options, calls the library or the service, and prints. Logic that a test or another program needs
belongs in the room of its subject.
"""
