"""What a network becomes for several processes, as far as one process can tell; the rest is in test_script_runs.py."""

import re
import socket
from datetime import timedelta

import pytest
import torch
from torch import nn

from common.errors import OneProcessError, UserError
from engine import distributed
from engine.batch_norm import average_buffers, hold_frozen_statistics, synchronise_batch_norm
from engine.distributed import Process, all_gather, restarted, start
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
        shard_fsdp(model, [], ALONE)


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


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK=1 in the environment does not fit WORLD_SIZE=1"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK=1 in the environment does not fit WORLD_SIZE=1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 in the environment does not fit WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "does not fit WORLD_SIZE=0"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 in the environment, but RANK is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "but MASTER_ADDR is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, "but MASTER_PORT is not set"),
        ({"RANK": "one"}, "RANK in the environment must be a whole number, got 'one'"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE in the environment must be a whole number, got '-2'"),
        ({"LOCAL_RANK": "a"}, "LOCAL_RANK in the environment must be a whole number"),
    ],
)
def test_what_an_earlier_launch_left_in_the_environment_is_refused(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(message)):
        start()


def test_empty_variables_count_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    process = start()
    assert (process.rank, process.world_size, process.is_main) == (0, 1, True)


@pytest.mark.usefixtures("_process_group")
def test_gather_and_average_in_a_group_of_one() -> None:
    assert all_gather({"a": 1}) == [{"a": 1}]
    model = nn.BatchNorm1d(2)
    model.running_mean.fill_(3.0)  # type: ignore[union-attr]
    average_buffers(model)
    assert model.running_mean.tolist() == [3.0, 3.0]  # type: ignore[union-attr]


def test_a_store_that_is_gone_ends_the_process_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when torchrun is killed while its processes start: PyTorch itself would try for many minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        port = free.getsockname()[1]
        variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in (variables | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(distributed, "LONGEST_CONNECT", timedelta(seconds=0.3))
        with pytest.raises(OneProcessError, match=rf"MASTER_PORT={port} \(.*refused.*\): torchrun has ended"):
            start()
        monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
        monkeypatch.setattr(distributed, "SHORTEST_START", timedelta(seconds=0.3))
        monkeypatch.setenv("RANK", "1")
        with pytest.raises(OneProcessError, match="rank 0 is not there"):
            start(timeout=timedelta(seconds=0.3))
        free.listen()
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(OneProcessError, match=rf"MASTER_PORT={port}: .*address already in use"):
            start(timeout=timedelta(seconds=0.3))
