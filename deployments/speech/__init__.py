"""From a checked request to one stream of audio: voice choice, long text, live text, voice design and encoding.

All protocols use this room, so it knows none of them: it imports neither HTTP nor FastAPI, and it raises errors without
choosing a response format.
"""
