"""Stand-alone inter-frame attention (SIFA, CVPR 2022) as a PyTorch op.

    import cuda_sifa
    attended = cuda_sifa.inter_frame_attention(x, offset, kernel_size=3)

`cuda_sifa.reference` holds the same function in plain PyTorch.
"""

from cuda_sifa import library, reference

library.load()

from cuda_sifa.ops import inter_frame_attention  # noqa: E402  (ops registers with the library that load() has loaded)

__all__ = ["inter_frame_attention", "library", "reference"]
