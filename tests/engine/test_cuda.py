"""Training on a GPU: nothing waits for it, mixed precision, the same bits again, processes that meet over NCCL."""

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from datasets import normalise
from engine.batch_norm import synchronise_batch_norm
from engine.distributed import Process
from engine.metrics import Metrics
from engine.parallel import wrap_ddp
from engine.prefetch import DevicePrefetcher
from engine.schema import Config, Execution, Logging, Optimization
from engine.state import TrainState
from engine.train_loop import train_epoch
from models import build_model
from tests.script import ROOT, arguments, launch, metrics, weights

pytestmark = pytest.mark.cuda
STEPS, CLASSES = 4, 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model("c2d_sifa_resnet50", num_classes=CLASSES, clip_length=8, width=8).cuda()


def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    """As the loader hands them over: bytes in memory that a GPU can copy from by itself."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(256, (STEPS, 4, 8, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(CLASSES, (STEPS, 4), generator=generator)
    return [(clips[i].pin_memory(), labels[i].pin_memory(), torch.arange(4)) for i in range(STEPS)]


def train(model: nn.Module, *, amp: Any = "none", processes: int = 1, **options: Any) -> Metrics:
    """One epoch of STEPS steps, with all that a step may have: clipping, an average of the weights."""
    device = torch.device("cuda", torch.cuda.current_device())
    process = Process(0, processes, device)
    settings = Optimization(epochs=100, warmup_epoch=0, base_learning_rate=0.01, clip_gradient=40.0, ema_decay=0.9)
    state = TrainState.new(model, settings, amp, STEPS, device)
    config = Config(optimization=settings, execution=Execution(amp=amp), logging=Logging(print_freq=100))
    return train_epoch(
        state, wrap_ddp(model, process), DevicePrefetcher(batches(), device, normalise), config, **options
    )


@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_no_step_waits_for_the_gpu(amp: str) -> None:
    """PyTorch raises at whatever would wait, from the second step to the end of the last one.

    With fp16 one wait a step is PyTorch's: its scaler asks whether the gradients are finite.
    """
    steps = 0

    def advance() -> None:
        nonlocal steps
        steps += 1
        torch.cuda.set_sync_debug_mode("error" if steps < STEPS else "default")

    try:
        train(network(), amp=amp, advance=advance)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == STEPS


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_close_to_float32(amp: str) -> None:
    """The same clips and weights: the loss differs by the rounding of half types, the weights move and stay finite."""
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss = train(model, amp=amp).loss
    assert loss == pytest.approx(train(network()).loss, rel=0.1)
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())
    assert any(not torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_a_deterministic_run_repeats_to_the_bit(data: Path, tmp_path: Path) -> None:
    """Processes of their own: cuBLAS reads its setting once."""
    runs = [tmp_path / name for name in ("one", "other")]
    for output in runs:
        more = ["--deterministic", "--set", "optimization.epochs=1", "execution.amp=bf16"]
        subprocess.run([sys.executable, "train_val_3d.py", *arguments(data, output, *more)], cwd=ROOT, check=True)
    first, second = (weights(output) for output in runs)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    one, other = ([line["loss"] for line in metrics(output)] for output in runs)
    assert one == other


@pytest.fixture
def alone_in_nccl() -> Iterator[None]:
    device = torch.device("cuda", torch.cuda.current_device())
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1, device_id=device)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone_in_nccl")
@pytest.mark.parametrize("synchronised", [False, True])
def test_a_group_of_one_process_trains_as_no_group(synchronised: bool) -> None:
    """Gradients, sums and, if so wished, BatchNorm's statistics go through NCCL and come back the same."""
    model = network()
    if synchronised:
        synchronise_batch_norm(model, Process(0, 2, torch.device("cuda", 0)))
        assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    together = train(model, processes=2)
    dist.barrier()
    alone = train(network())
    assert together.videos == alone.videos == 4 * STEPS
    assert together.loss == pytest.approx(alone.loss, rel=1e-2)  # convolutions' algorithms may differ


def test_two_gpus_share_statistics(data: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    more = ["--set", "optimization.epochs=1", "optimization.batch_norm=sync"]
    done = launch(["torch.distributed.run"], 2, *arguments(data, tmp_path / "run", *more))
    assert done.returncode == 0, done.stderr[-4000:]
    assert all(math.isfinite(line["loss"]) for line in metrics(tmp_path / "run"))
