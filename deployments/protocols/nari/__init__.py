"""The WebSocket protocol `nari.speech.v1`: one text, written while it is spoken.

Its events and error codes stay in this folder; driving a live text belongs in `speech`.
"""
