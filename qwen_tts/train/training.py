"""The training loop: a schedule, averaged weights, states to resume from, and a report with curves.

A run directory holds config.toml (a copy), history.jsonl (losses), report.png (their curves) and state.safetensors
(the last saved weights, their averages and the optimisers' moments).

Processes started by torchrun train one module together: they share every batch, gradients are averaged, and the first
process writes. On a CPU two processes with one thread each are faster than one with two.
"""

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from qwen_tts.train.report import draw_report

STATE, HISTORY, REPORT = "state.safetensors", "history.jsonl", "report.png"
_MAX_GRADIENT_NORM = 1.0
_BETAS = (0.9, 0.98)
# A factor on the step of torch's "match_rms_adamw" (arXiv:2502.16982, section 2.2), and on its decay. It was better for
# the demo's talker (docs/LOG.md).
_MUON_SCALE = 2.5
_MOMENTS = (("exp_avg", "exp_avg_sq", "step"), ("momentum_buffer",))  # the state of AdamW and of Muon

Losses = Mapping[str, Tensor]  # scalars by name
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Schedule:
    """The learning rate: linear warm-up, then a cosine down to `floor` times the peak. `average` is the decay of the
    averaged weights; `log_every`, `check_every` and `save_every` count steps."""

    steps: int
    peak: float
    warmup: int = 200
    floor: float = 0.03
    weight_decay: float = 0.01
    average: float = 0.999
    log_every: int = 50
    check_every: int = 500
    save_every: int = 500

    def rate(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.peak * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done)))


def share() -> tuple[int, int]:
    """Return the number of this process, and the number of processes that train together."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    parameters = list(parameters)
    for parameter in parameters:  # all processes take part, also those whose examples do not use a parameter
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


class Trainee:
    """A module being trained, with the state that a resumed run needs.

    `hidden` names the matrices inside its layers, which Muon updates (https://kellerjordan.github.io/posts/muon); AdamW
    updates all other parameters.
    """

    def __init__(self, module: nn.Module, schedule: Schedule, hidden: Collection[str] = ()) -> None:
        self.module = module
        self.schedule = schedule
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        decay = schedule.weight_decay
        others = [p for name, p in self.parameters.items() if name not in hidden]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=0.0, betas=_BETAS, weight_decay=decay, fused=True)
        ]
        if hidden:
            matrices = [self.parameters[name] for name in hidden]
            self.optimizers.append(
                torch.optim.Muon(matrices, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
            )
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.step = 0

    def update(self, loss: Tensor) -> float:
        """Do one optimiser step; return the norm of the gradient before clipping."""
        for parameter in self.parameters.values():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if dist.is_initialized():
            _average_gradients(self.parameters.values())
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), _MAX_GRADIENT_NORM))
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    scale = _MUON_SCALE if isinstance(optimizer, torch.optim.Muon) else 1.0
                    group["lr"] = scale * self.schedule.rate(self.step)
                optimizer.step()
        self.step += 1
        decay = min(self.schedule.average, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.parameters.values()], 1.0 - decay)
        return norm

    def averaged_state(self) -> dict[str, Tensor]:
        """Return the module's state with averaged weights."""
        return {**self.module.state_dict(), **self.average}

    def save(self, directory: Path) -> None:
        tensors = {f"module/{name}": t for name, t in self.module.state_dict().items()}
        tensors |= {f"average/{name}": t for name, t in self.average.items()}
        for name, parameter in self.parameters.items():
            for optimizer in self.optimizers:
                for moment, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{moment}/{name}"] = value
        partial = directory / f"{STATE}.partial"
        save_file({name: t.contiguous().clone() for name, t in tensors.items()}, partial, {"step": str(self.step)})
        partial.rename(directory / STATE)

    def resume(self, directory: Path) -> bool:
        """Load the last save in `directory`; return False when there is none."""
        if not (directory / STATE).exists():
            return False
        with safe_open(directory / STATE, framework="pt") as stored:
            self.step = int(stored.metadata()["step"])
            self.module.load_state_dict({n: stored.get_tensor(f"module/{n}") for n in self.module.state_dict()})
            known = set(stored.keys())
            for name, parameter in self.parameters.items():
                self.average[name] = stored.get_tensor(f"average/{name}")
                for optimizer, moments in zip(self.optimizers, _MOMENTS, strict=False):
                    if f"{moments[0]}/{name}" in known:
                        optimizer.state[parameter] = {m: stored.get_tensor(f"{m}/{name}") for m in moments}
        return True


def averaged_weights(directory: Path) -> dict[str, Tensor]:
    """Return the last saved state dict of the module trained in `directory`, with averaged weights."""
    weights = {}
    with safe_open(directory / STATE, framework="pt") as stored:
        for name in sorted(stored.keys(), reverse=True):  # module/ before average/
            part, _, parameter = name.partition("/")
            if part in ("module", "average"):
                weights[parameter] = stored.get_tensor(name)
    return weights


def train(
    trainee: Trainee,
    directory: Path,
    losses: Callable[[int], Losses],
    weights: Mapping[str, float],
    check: Callable[[], Figures],
    title: str,
) -> None:
    """Step until the schedule ends. Those of `losses(step)` that have a weight are summed, the others only reported.
    `check()` measures held-out data."""
    schedule = trainee.schedule
    first = share()[0] == 0
    directory.mkdir(parents=True, exist_ok=True)
    if trainee.step == 0 and first:
        (directory / HISTORY).unlink(missing_ok=True)
    sums: dict[str, float] = {}
    started = time.monotonic()
    for step in (
        progress := tqdm(
            range(trainee.step, schedule.steps), title, initial=trainee.step, total=schedule.steps, disable=not first
        )
    ):
        torch.manual_seed(step)  # a resumed run draws the same numbers as an uninterrupted one
        found = losses(step)
        norm = trainee.update(sum((weight * found[name] for name, weight in weights.items()), torch.zeros(())))
        if not first:
            continue
        for name, value in {**{name: float(loss.detach()) for name, loss in found.items()}, "gradient": norm}.items():
            sums[name] = sums.get(name, 0.0) + value
        done = step + 1
        last = done == schedule.steps
        if done % schedule.log_every == 0 or last:
            figures = {name: total / schedule.log_every for name, total in sums.items()}
            figures["seconds_per_step"] = (time.monotonic() - started) / schedule.log_every
            if done % schedule.check_every == 0 or last:
                trainee.module.eval()
                with torch.inference_mode():
                    figures |= {f"held_out/{name}": value for name, value in check().items()}
                trainee.module.train()
            with (directory / HISTORY).open("a", encoding="utf-8") as history:
                history.write(json.dumps({"step": done, **{k: round(v, 5) for k, v in figures.items()}}) + "\n")
            progress.set_postfix({name: f"{value:.3f}" for name, value in figures.items() if name in weights})
            sums, started = {}, time.monotonic()
        if done % schedule.save_every == 0 or last:
            trainee.save(directory)
            draw_report(directory / HISTORY, directory / REPORT, title)
