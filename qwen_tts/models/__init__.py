"""The neural networks that generate codes: talker, code predictor and speaker encoder, as modules with weights.

Batching, slots and sampling belong in `engine`; the codec's networks belong in `codec`.
"""
