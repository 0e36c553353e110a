"""The deployments that compute: the talker, the codec decoder and the codec encoder, with their batches and metrics.

This is the only room that imports torch. It knows the library, the settings and the wire, but no HTTP: clients, voice
names and protocols belong in the rooms of the ingress.
"""

from deployments.replicas.quiet_start import import_quietly

# A replica that starts imports torch, a second of work, while other replicas of the machine serve streams.
import_quietly("torch")
