"""Two hundred attacks, as `bash make.sh attack` runs thousands, and what counts as a failure."""

from pathlib import Path

from tests.attacks.attack import attack, prepare
from tests.attacks.attacks import ATTACKS
from tests.attacks.child import CRASHED, judge, run

# A network, or processes: fewer of them.
COSTLY = ("names", "own_videos", "record", "video", "checkpoint_entries", "special_file", "bomb", "full_disk")


def test_two_hundred_attacks(tmp_path: Path) -> None:
    files = prepare(tmp_path)
    cheap = [kind for kind in ATTACKS if kind.__name__ not in COSTLY]
    costly = [kind for kind in ATTACKS if kind.__name__ in COSTLY]
    for kinds, seeds in ((cheap, range(180)), (costly, range(180, 200))):
        for seed, kind, ending in attack(files, tmp_path, seeds, kinds):
            assert ending.right, f"seed {seed}, {kind}: {ending.what}\n{ending.output}"


def test_what_an_attack_may_end_in() -> None:
    assert judge(0, "a  90.0 %\n").what == "result"
    assert judge(1, "list.txt:3: a: it is missing\n").what == "result"
    assert judge(2, "error: list.txt is no list\n").what == "refused"
    assert not judge(2, "error: a\nerror: b\n").right
    assert not judge(2, "").right
    assert not judge(3, "").right
    assert not judge(CRASHED, "Traceback (most recent call last):\n  x\nKeyError: 3\n").right
    assert not judge(0, "\x1b[31mred\n").right


def test_a_child_has_limits_of_its_own(tmp_path: Path) -> None:
    def takes_memory() -> int:
        return len(bytes(3 * 2**30))

    def raises() -> int:
        raise KeyError("x")

    assert run(takes_memory, tmp_path / "log").what.startswith("traceback: MemoryError")
    assert run(raises, tmp_path / "log").what == "traceback: KeyError: 'x'"
    assert run(lambda: 0, tmp_path / "log").what == "result"
