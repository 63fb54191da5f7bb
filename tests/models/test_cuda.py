"""SIFA-Net on a GPU: the CPU's logits and gradients, alone and compiled."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from models import build_model
from models.sifa import InterFrameAttention
from tests.op.cases import relative_error

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def _float32_proper() -> Iterator[None]:
    """Convolutions of float32 otherwise round to 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def network() -> nn.Module:
    """With offsets of some tenths of a pixel; in eval mode, so that it is a smooth function of its clips."""
    torch.manual_seed(0)
    model = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, width=16).eval()
    for module in model.modules():
        if isinstance(module, InterFrameAttention) and module.offset is not None:
            nn.init.normal_(module.offset.weight, std=0.01)
    return model


def logits_and_gradient(model: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
    clips = clips.detach().requires_grad_()
    logits = torch.cat(model(clips), 1)
    (gradient,) = torch.autograd.grad(logits.square().sum(), clips)
    return logits.detach(), gradient


def test_the_cpu_and_the_gpu_agree() -> None:
    model, clips = network().double(), torch.randn(2, 3, 8, 48, 40, dtype=torch.float64)
    expected = logits_and_gradient(model, clips)
    for result, wanted in zip(logits_and_gradient(model.cuda(), clips.cuda()), expected, strict=True):
        assert relative_error(result.cpu(), wanted) < 1e-9


@pytest.mark.parametrize("amp", [None, torch.bfloat16], ids=str)
def test_a_compiled_network(amp: torch.dtype | None) -> None:
    """Code is generated for all but the op, in one graph. In bfloat16 fused operations round less often."""
    pytest.importorskip("triton")
    torch._dynamo.reset()
    model, clips = network().cuda(), torch.randn(2, 3, 8, 48, 40, device="cuda")
    with torch.autocast("cuda", amp, enabled=amp is not None):
        expected = logits_and_gradient(model, clips)
        results = logits_and_gradient(torch.compile(model, fullgraph=True), clips)  # type: ignore[arg-type]
    logits, gradient = (relative_error(*pair) for pair in zip(results, expected, strict=True))
    assert logits < (1e-4 if amp is None else 5e-2)
    # Kinks (ReLU, max pooling, the cells that offsets point into) may flip where values lie on them to within rounding.
    assert torch.nn.functional.cosine_similarity(results[1].flatten(), expected[1].flatten(), dim=0) > 0.99, gradient
