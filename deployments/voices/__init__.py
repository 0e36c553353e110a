"""The voice library: stored voices, consents and previews, on a directory or a bucket.

The room ends at values such as records and voice prompts. Which voice a request speaks with is decided in `speech`;
encoding a recording is done by the codec encoder in `replicas`; routes are in `protocols`.
"""
