"""The values and streams that travel between deployments: requests, chunks, response streams and live text.

Every deployment imports this room, so it must stay small, and it imports no deployment. The JSON of clients does not
belong here: that is in `protocols`.
"""
