"""The clips of benchmarks/motion_study.py: still within a tube, moving between tubes, alike in any single frame."""

import torch

from benchmarks.motion_study import DIRECTIONS, SIZE, STEPS, TUBES, VARIANTS, draw, table, train


def places(clips: torch.Tensor) -> torch.Tensor:
    """(N, TUBES, 2): centre of the thing on the torus, where a tube differs from the median of all."""
    tubes = clips.unflatten(2, (TUBES, -1)).mean(3)
    apart = (tubes - tubes.median(dim=2, keepdim=True).values).square().sum(1)  # (N, TUBES, H, W)
    angle = torch.arange(SIZE) * 2 * torch.pi / SIZE
    wave = torch.polar(torch.ones(SIZE), angle).to(torch.complex64)
    rows, columns = (apart.sum(axis).to(torch.complex64) @ wave for axis in (3, 2))
    return torch.stack([rows, columns], -1).angle() * SIZE / (2 * torch.pi)


def test_things_move_between_tubes_in_the_direction_of_their_class() -> None:
    clips, label = draw(64, torch.Generator().manual_seed(1))
    assert clips.shape == (64, 3, 16, SIZE, SIZE)
    assert set(label.tolist()) == {0, 1, 2, 3}
    moved = (places(clips).diff(dim=1) + SIZE / 2) % SIZE - SIZE / 2  # the short way round
    along = (moved * torch.tensor(DIRECTIONS)[label][:, None]).sum(-1).median(dim=1).values
    assert (along > 0).float().mean() > 0.95
    assert STEPS[0] - 2 < along.median() < STEPS[1] + 2


def test_nothing_moves_within_a_tube() -> None:
    clips, _ = draw(8, torch.Generator().manual_seed(2))
    change = clips.unflatten(2, (TUBES, 4)).diff(dim=3)
    assert change.std().item() < 0.3 * 2**0.5 * 1.05  # the noise of two frames, no more
    assert clips.diff(dim=2).std() > change.std()


def test_a_run_and_its_table() -> None:
    runs = [train(name, 0, steps=1) for name in VARIANTS]
    assert all(0 <= run["top-1"] <= 100 for run in runs)
    lines = table(runs, 1).splitlines()
    assert sum(line.startswith(f"| {name} |") for line in lines for name in VARIANTS) == len(VARIANTS)
