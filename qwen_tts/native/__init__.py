"""Native code for CPUs (C++) and its loader: all layers of a transformer in one call.

Only hot loops belong here. The modules of `models` must be able to compute the same without it.
"""
