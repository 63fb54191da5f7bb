"""Half precision under CUDA's autocast, seen without a GPU: other functions return float32 there than on a CPU."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import models.sifa
from models import build_model

#: The functions of these networks that CUDA's autocast computes and returns in float32 (PyTorch's list of ops that
#: autocast to float32). The CPU's autocast leaves them in half precision.
RETURNS_FLOAT32 = {
    functional.layer_norm,
    functional.softmax,
    torch.softmax,
    Tensor.softmax,
    torch.sum,
    Tensor.sum,
    torch.exp,
    torch.pow,
    Tensor.pow,
}


class CudaAutocast(TorchFunctionMode):
    """Within autocast on the CPU: widens the inputs of the functions that CUDA's autocast computes in float32."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in RETURNS_FLOAT32:
            args = [value.float() if isinstance(value, Tensor) else value for value in args]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["c2d_sifa_resnet50", "c2d_sifa_swin_vit_s_p4_w7"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_every_block_attends_in_half_precision(name: str, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sum with a float32 branch would leave the clip, and the op of all later blocks, in float32."""
    attend, dtypes = models.sifa.inter_frame_attention, []

    def record(clip: Tensor, *arguments: Any, **options: Any) -> Tensor:
        dtypes.append(clip.dtype)
        return attend(clip, *arguments, **options)

    monkeypatch.setattr(models.sifa, "inter_frame_attention", record)
    options: dict[str, Any] = {"patch_norm": True} if "swin" in name else {}
    model = build_model(name, num_classes=3, clip_length=8, width=6, **options).train(training)
    with torch.autocast("cpu", torch.bfloat16), CudaAutocast():
        logits = model(torch.randn(2, 3, 8, 32, 32))
    assert len(dtypes) > 5
    assert set(dtypes) == {torch.bfloat16}
    if training:
        sum(head.float().sum() for head in logits).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
