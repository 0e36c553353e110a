# syntax=docker/dockerfile:1.7
# The image of the service: docker build --target cpu -t qwen-tts:0.1.0-cpu .
#                           docker build --target cuda -t qwen-tts:0.1.0-cuda .

FROM python:3.11.13-slim-bookworm AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# KubeRay's probes run wget in bash. g++ compiles the kernels for the CPU (on a GPU, Triton's launchers) at the start.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash g++ wget \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 qwen-tts \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin qwen-tts
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /home/qwen-tts

FROM base AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY qwen_tts qwen_tts
COPY deployments deployments
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM base AS cpu
RUN pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install "$(echo /wheels/*.whl)[serve,cloud,tracing]"
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=10m CMD ["wget", "-q", "-O-", "http://127.0.0.1:8000/healthz"]
CMD ["qwen-tts", "serve", "--host", "0.0.0.0", "--verbose"]

FROM base AS cuda
# PyPI's torch brings CUDA's libraries. The driver comes from the node, and nvidia-cuda-mps-control with it: NVIDIA's
# container toolkit puts both where the system looks, and GKE's device plugin into /usr/local/nvidia.
RUN pip install torch==2.13.0
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install "$(echo /wheels/*.whl)[serve,cloud,tracing]"
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64 PATH=/usr/local/nvidia/bin:$PATH
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=30m CMD ["wget", "-q", "-O-", "http://127.0.0.1:8000/healthz"]
CMD ["qwen-tts", "serve", "--host", "0.0.0.0", "--verbose"]
