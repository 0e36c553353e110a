"""Processes that train together end with the weights of one that saw all examples, resumed runs as unbroken ones do."""

import dataclasses
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from qwen_tts.train.training import HISTORY, Losses, Schedule, Trainee, share, train
from qwen_tts.train.vector_quantizer import LearningQuantizer

SCHEDULE = Schedule(steps=6, peak=1e-2, warmup=2, log_every=3, check_every=6, save_every=6)


class Model(nn.Module):
    """`rare` is used by one process only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.usual, self.rare = nn.Linear(3, 1), nn.Linear(3, 1)


def run(directory: Path, steps: int = SCHEDULE.steps) -> dict[str, Tensor]:
    model = Model()
    trainee = Trainee(model, dataclasses.replace(SCHEDULE, steps=steps), hidden=["usual.weight"])
    trainee.resume(directory)
    number, processes = share()

    def losses(step: int) -> Losses:
        examples = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        loss = model.usual(examples[number::processes]).square().mean()
        if number == 0:
            loss = loss + model.rare(examples).square().mean() * processes
        return {"loss": loss}

    train(trainee, directory, losses, {"loss": 1.0}, lambda: {"loss": 0.0}, "test")
    return model.state_dict()


def one_of_two(number: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=number, world_size=2)
    torch.save(run(directory / "together"), directory / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    alone = run(tmp_path / "alone")
    spawn(one_of_two, (tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]  # torch has no types for it
    for number in range(2):
        together = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert together.keys() == alone.keys()
        for name, tensor in alone.items():
            assert torch.allclose(together[name], tensor, atol=1e-6), name
    histories = [(tmp_path / name / HISTORY).read_text().splitlines() for name in ("alone", "together")]
    assert len(histories[0]) == len(histories[1]) == 2, "one of them writes"


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    """With the moments of both optimisers."""
    whole = run(tmp_path / "whole")
    run(tmp_path / "broken", steps=3)
    resumed = run(tmp_path / "broken")
    for name, tensor in whole.items():
        assert torch.allclose(resumed[name], tensor, atol=1e-6), name


def quantise(number: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=number, world_size=2)
    torch.manual_seed(0)
    quantizer = LearningQuantizer(2, 8, 4)
    vectors = torch.randn(2, 4, 64)
    quantizer.initialise(vectors[number].T)
    for _ in range(5):
        quantizer.books[1].usage[3] = 0.0  # dead: a vector of either process takes its place
        quantizer(vectors[number : number + 1])
    torch.save(quantizer.state_dict(), directory / f"{number}.pt")
    dist.destroy_process_group()


def test_processes_share_their_codebooks(tmp_path: Path) -> None:
    spawn(quantise, (tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]  # torch has no types for it
    one, other = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    assert one["codebooks.0.usage"].sum() > 64, "both processes' vectors count"
