"""Streams under faults: every stream is compared with the same request on the undisturbed service."""
