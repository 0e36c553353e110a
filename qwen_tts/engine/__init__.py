"""The engine: continuous batching of requests into frames of codes.

Here are the scheduler, the sequences, the KV cache, the runner with its CPU and GPU variants, sampling and pacing. The
layers of the models belong in `models`; turning codes into samples belongs in `codec`; threads and deployments belong
to the service.
"""
