"""`qwen-tts cluster`: a speech service on Kubernetes, run by KubeRay.

The commands speak to the Kubernetes API only. They import neither Ray, torch nor the rest of `deployments`, so they
start fast and run on a laptop. The objects that they apply are rendered by the chart in helm/qwen-tts.
"""
