"""How a training script begins and ends: seeds, signals, and errors as one line with an exit code."""

import errno
import os
import random
from collections.abc import Callable

import numpy as np
import torch

from common.cli import never_fail_to_print, print_error
from common.errors import OneProcessError, UserError, describe, one_line
from engine.distributed import is_main, lost_processes, stop
from engine.loader_processes import end_workers, reason_of_end
from engine.signals import Interrupted, StopSignals

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EFBIG: "a file is larger than the system allows (ulimit -f)",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "the memory is full",
}


def seed_everything(seed: int, *, deterministic: bool) -> None:
    """Seeds all random generators, and chooses PyTorch's algorithms."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    choose_algorithms(deterministic=deterministic)


def choose_algorithms(*, deterministic: bool) -> None:
    """Chooses the fastest algorithms, or those that always give the same bits.

    On a GPU the matrix products of float32 use TF32, as PyTorch's convolutions do by default: SIFA-Transformer consists
    of the former, SIFA-Net of the latter.
    """
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it


def run_to_the_end(run: Callable[[StopSignals], None], *, kept: str) -> int:
    """Runs one process of a script and returns its exit code.

    Args:
        run: the script; it joins the other processes itself.
        kept: what remains of a run that a signal stops, for its last line.

    Returns:
        0; 2 for a mistake that the user can correct, said in one line; 1 if a process was lost; 128 + n after signal n.
    """
    never_fail_to_print()
    with StopSignals() as signals:
        try:
            run(signals)
        except UserError as error:
            # A mistake in configuration or checkpoint happens in every process, and one prints it.
            if is_main() or isinstance(error, OneProcessError):
                print_error(one_line(error))
            return 2
        except OSError as error:
            if error.errno not in _FULL:
                raise
            print_error(one_line(f"{_FULL[error.errno]}: {describe(error)}. What was saved before is whole"))
            return 2
        except torch.OutOfMemoryError as error:
            reason = str(error).partition(". ")[0]
            print_error(one_line(f"{reason}: lower optimization.batch_size, with a larger iter_size for the same step"))
            return 2
        except RuntimeError as error:
            if ended := reason_of_end(error):
                print_error(one_line(ended[0]))
                return ended[1]
            lost = lost_processes(error)
            if not lost:
                raise
            reason = str(error).rpartition("] ")[2]
            print_error(one_line(f"rank {os.environ['RANK']} has lost {', '.join(lost)}: {reason}"))
            return 1
        except Interrupted:
            if signals.received is None:
                return 1  # another process was asked to stop
            if is_main():
                print_error(f"stopped by {signals.received.name}, {kept}")
            return 128 + signals.received
        finally:
            end_workers()
    stop()
    return 0
