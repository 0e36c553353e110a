"""The parts that all HTTP protocols share: gate, request log, bodies and forms, responses, and the OpenAPI document.

A route or a field of one protocol belongs in that protocol's folder. Speech without HTTP belongs in `speech`.
"""
