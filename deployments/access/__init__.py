"""Access control: API keys and their file, the caller of a request, and each caller's limits.

Answering a refused caller with a status belongs in `http`.
"""
