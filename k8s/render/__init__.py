"""The program behind `make manifests`: it renders the chart's schema from the settings, and k8s/ from the chart.

Also here: the input for linters, and the arithmetic of device memory. Templates and values belong in helm/qwen-tts.
"""
