"""Stand-alone inter-frame attention (SIFA, CVPR 2022) as PyTorch ops.

    import cuda_sifa
    saliency = cuda_sifa.motion_saliency(x)  # a convolution of it predicts the offsets
    attended = cuda_sifa.inter_frame_attention(x, offset, kernel_size=3)

`cuda_sifa.reference` holds the same functions in plain PyTorch.
"""

from cuda_sifa import library, reference

library.load()

# These register with the library that load() has loaded.
from cuda_sifa.ops import inter_frame_attention  # noqa: E402
from cuda_sifa.saliency import motion_saliency  # noqa: E402

__all__ = ["inter_frame_attention", "library", "motion_saliency", "reference"]
