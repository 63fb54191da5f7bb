"""What a network becomes for several processes, as far as one process can tell; the rest is in test_script_runs.py."""

import pytest
import torch
from torch import nn

from common.errors import UserError
from engine.batch_norm import hold_frozen_statistics, synchronise_batch_norm
from engine.distributed import Process, restarted
from engine.optim import freeze
from engine.parallel import shard_fsdp, wrap_ddp
from engine.schema import Optimization
from models import build_model
from tests.engine.runs import ALONE


def network() -> nn.Module:
    return build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=4)


def test_one_process_trains_the_network_itself() -> None:
    model = network()
    assert wrap_ddp(model, ALONE) is model
    assert synchronise_batch_norm(model, ALONE) is model
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    with pytest.raises(UserError, match="fsdp shares the network between processes, and there is one"):
        shard_fsdp(model, [], ALONE)  # type: ignore[arg-type]


def test_statistics_over_all_processes_need_gpus() -> None:
    with pytest.raises(UserError, match=r"optimization\.batch_norm sync needs GPUs"):
        synchronise_batch_norm(network(), Process(0, 2, torch.device("cpu")))


def test_every_norm_is_synchronised_with_its_values_and_can_be_frozen() -> None:
    model = network()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    synchronise_batch_norm(model, Process(0, 2, torch.device("cuda", 0)))
    assert [name for name, module in model.named_modules() if isinstance(module, nn.SyncBatchNorm)] == names
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    freeze(model, Optimization(freeze=["layer1.*"]), 0)
    hold_frozen_statistics(model.train())
    for name in names:
        assert model.get_submodule(name).training != name.startswith("layer1."), name


def test_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, expected in (("0", False), ("2", True)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        assert restarted() == expected
