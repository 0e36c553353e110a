"""ElevenLabs' protocol: its HTTP routes, its WebSocket, and its fields, formats and error bodies.

Nothing that another protocol needs belongs here.
"""
