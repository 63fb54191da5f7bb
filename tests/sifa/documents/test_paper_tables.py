"""Which settings files have a row in the paper's tables."""

import shutil
from pathlib import Path

import pytest

from common.errors import UserError
from sifa.documents.paper_tables import has_paper_figure, paper_tables

SETTINGS = Path(__file__).parents[3] / "settings"
VARIANT = """# A variant of our own. Counted here: 23.66 GMACs at 224 x 224.
base: ../c2d_sifa_resnet50-1x16x1.k400.yml
SIFA: {offset: difference}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Three files of the paper."""
    for name in ("c2d_sifa_resnet50-1x16x1.k400", "c2d_sifa_resnet50-1x32x1.k400", "ablations/kernel-1"):
        file = tmp_path / f"{name}.yml"
        file.parent.mkdir(exist_ok=True)
        shutil.copy(SETTINGS / f"{name}.yml", file)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["c2d_sifa_mine.k400", "c2d_sifa_resnet50-mine.k400", "mine", "ablations/kernel-mine", "ablations/mine"]
)
def test_a_variant_that_the_paper_does_not_have_gets_no_row(name: str, settings: Path) -> None:
    expected = paper_tables(settings)
    assert expected.count("`train ") == 3
    for text in (VARIANT, VARIANT.partition("\n")[2]):
        (settings / f"{name}.yml").write_text(text)
        assert not has_paper_figure(settings / f"{name}.yml")
        assert paper_tables(settings) == expected


def test_half_a_header_is_an_error(settings: Path) -> None:
    file = settings / "ablations/kernel-1.yml"
    file.write_text(file.read_text().replace("Counted here: ", "There are "))
    with pytest.raises(UserError, match=r"kernel-1\.yml: the header has the paper's figure, but no cost"):
        paper_tables(settings)
