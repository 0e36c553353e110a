"""Where a replica computes, from its settings."""

import os

import torch

from deployments.settings import TorchReplicaArgs


def prepare_torch(args: TorchReplicaArgs) -> torch.device:
    """Set torch's threads for this process; the device of the deployment.

    Ray shows a replica with a share of a GPU exactly one device, so "cuda" is that one.
    """
    # Ray derives OMP_NUM_THREADS from num_cpus, which is a scheduling weight here, not a bound on threads.
    torch.set_num_threads(args.threads or max(1, (os.cpu_count() or 1) // 2))
    return torch.device("cuda" if args.num_gpus > 0 else "cpu")
