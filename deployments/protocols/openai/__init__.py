"""OpenAI's HTTP protocol and its extensions: speech, batches, voices, consents, models and voice design.

The field names and answers of this protocol stay in this folder. Live text and WebSockets belong to other protocols.
"""
