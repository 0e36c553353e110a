"""`qwen-tts cluster`: a speech service on Kubernetes, run by KubeRay. Speaks to the Kubernetes API only."""
