"""torch.hub builds a network, or the op's module, from a folder that is not on the path."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

CODE = """
import sys
import torch

folder = sys.argv[1]
network = torch.hub.load(folder, "sifa_net", source="local", num_classes=3, clip_length=8, width=4).eval()
assert [tuple(head.shape) for head in network(torch.randn(1, 3, 8, 32, 32))] == [(1, 3), (1, 3)]
swin = torch.hub.load(folder, "sifa_transformer", "s", source="local", num_classes=3, clip_length=4, width=6)
assert [tuple(head.shape) for head in swin(torch.randn(1, 3, 4, 32, 32))] == [(1, 3)]
attention = torch.hub.load(folder, "inter_frame_attention", source="local", channels=4)
assert attention(torch.randn(1, 2, 4, 5, 6)).shape == (1, 2, 4, 5, 6)
"""


def test_networks_and_the_module_are_built_from_a_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
