"""What a GPU gives at most, for the figures of the op to be compared with: python -m benchmarks.device_limits

- memory: a copy of much more than the last cache holds;
- last cache: a copy that stays in it;
- reductions: rows of float32 added at random places, as the op's backward pass adds the gradient of keys.
"""

import sys

import torch

from benchmarks.cuda_device import CudaDevice, Device, copy_bandwidth, median_seconds, parser, sees_gpu

CHANNELS = 128
ROWS = 2**17


def reductions_per_second(device: Device) -> float:
    """float32 values that PyTorch's index_add_ adds in a second, in rows of CHANNELS at random places."""
    source = torch.randn(ROWS, CHANNELS, device=device.type)
    target = torch.zeros(ROWS // 8, CHANNELS, device=device.type)
    places = torch.randint(len(target), (ROWS,), device=device.type)
    return source.numel() / median_seconds(device, [lambda: target.index_add_(0, places, source)], 0.5)


def report(device: Device) -> str:
    last_cache = f"last cache ({device.cache / 2**20:.0f} MiB)"
    return "\n".join(
        [
            f"{device.name}, torch {torch.__version__}",
            "",
            f"- memory: {copy_bandwidth(device, 16 * device.cache) / 1e12:.3f} TB/s, read and written",
            f"- {last_cache}: {copy_bandwidth(device, device.cache // 8) / 1e12:.3f} TB/s",
            f"- reductions: {reductions_per_second(device) / 1e9:.1f} G float32 values/s in rows of {CHANNELS}",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    args = parser("device_limits", __doc__).parse_args(argv)
    if not sees_gpu():
        return 2
    text = report(CudaDevice())
    print(text, flush=True)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
