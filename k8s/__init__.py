"""Plain Kubernetes manifests, and the program that renders them (k8s/render).

Change the chart in helm/qwen-tts, not the manifests.
"""
