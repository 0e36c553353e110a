"""DashScope's realtime WebSocket protocol for speech: its session fields, events and errors.

Nothing that another protocol needs belongs here.
"""
