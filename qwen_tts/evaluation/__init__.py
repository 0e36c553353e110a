"""Evaluate the speech of a checkpoint, a service or recordings. All audio is at RATE_HZ."""

RATE_HZ = 24000
