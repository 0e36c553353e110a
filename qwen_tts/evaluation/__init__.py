"""Listen to a checkpoint, a service or recordings, and put figures on what is heard. All audio is at RATE_HZ."""

RATE_HZ = 24000
