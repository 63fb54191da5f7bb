"""How many threads a network computes with on the CPU: one for a narrow network, all for a wide one.

An operator that several threads share ends when the last of them is done. On an idle machine that costs microseconds;
if another program holds a core, it costs that program's time slice, some milliseconds. The operators of a narrow
network take less: a second thread helps it little on an idle machine, and costs most of its speed on a busy one. The
second core decodes meanwhile. The operators of a wide network take milliseconds, and gain.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import nn

#: Parameters times pixels of a clip below which a network is narrow: some 0.2 ms for each of its operators. SIFA-Net of
#: width 16 has 9e10 for clips of 8 x 64 x 64 and 5e11 for 16 x 112 x 112, the paper's has 3e13.
NARROW = 1e12


def is_narrow(network: nn.Module, clip: Sequence[int]) -> bool:
    """Whether a network's operators are too short to be shared between threads.

    Args:
        network: any.
        clip: (T, H, W), what the network computes for.
    """
    return sum(parameter.numel() for parameter in network.parameters()) * prod(clip) < NARROW


def choose_threads(network: nn.Module, clip: Sequence[int]) -> int:
    """The number of threads for a network: 1 if it is narrow, else as many as PyTorch is set to.

    The environment variable OMP_NUM_THREADS is the user's own choice, and stays.

    Args:
        network: any.
        clip: (T, H, W), what the network computes for.
    """
    if os.environ.get("OMP_NUM_THREADS") or not is_narrow(network, clip):
        return torch.get_num_threads()
    return 1


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Lets PyTorch compute with `count` threads for a while, called from this thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
