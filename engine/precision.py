"""Mixed precision: the names of the configuration, and PyTorch's autocast."""

import torch

AMP_DTYPES = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # execution.amp -> dtype of autocast


def autocast(device: torch.device, amp: torch.dtype | None) -> torch.autocast:
    """PyTorch's autocast, which does nothing for None."""
    return torch.autocast(device.type, amp, enabled=amp is not None)
