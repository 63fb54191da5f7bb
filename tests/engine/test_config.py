"""Configuration files: overlays, changes, and every mistake in one sentence that names file and key."""

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from engine.config import ConfigError, as_change, dump_config, load_config

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str, name: str = "settings.yml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_lies_over_its_base_and_changes_over_both(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1\ndataset: {num_classes: 7, clip_length: 8}\noptimization: {epochs: 5}\n", "ground.yml")
    write(tmp_path, "base: ground.yml\ndataset: {clip_length: 32}\n", "base.yml")
    path = write(tmp_path, "base: base.yml\noptimization: {epochs: 9}\n")
    config = load_config(path, ["optimization.weight_decay=3e-5", "dataset.name=two words"])
    assert config.seed == 1
    assert (config.dataset.num_classes, config.dataset.clip_length, config.dataset.name) == (7, 32, "two words")
    assert (config.optimization.epochs, config.optimization.weight_decay) == (9, 3e-5)


@pytest.mark.parametrize("text", ["4e-2", "4E-2", "+4.e-2", ".04", "0.04", "4.0e-2"])
def test_numbers_as_people_write_them(text: str, tmp_path: Path) -> None:
    config = load_config(write(tmp_path, f"optimization: {{base_learning_rate: {text}}}"))
    assert config.optimization.base_learning_rate == 0.04


def test_whole_numbers_serve_as_real_ones_but_not_the_reverse(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "optimization: {loss_weight: 4}")).optimization.loss_weight == 4.0
    with pytest.raises(ConfigError, match=r"optimization\.epochs: .*integer.*, got 1\.5"):
        load_config(write(tmp_path, "optimization: {epochs: 1.5}"))


def test_the_output_folder_is_named_after_the_file(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "", "a.b.yml")).output_dir == "output/a.b"


@pytest.mark.parametrize("folder", ["a: b", "a # b", " a ", "a'b\"c\\d", "1.0", "{a}", "Größe 😀"])
def test_a_change_keeps_any_path(folder: str, tmp_path: Path) -> None:
    file = write(tmp_path, "", "a.yml")
    for value in (folder, Path(folder)):
        assert load_config(file, [as_change("output_dir", value)]).output_dir == folder


def test_a_resolved_configuration_reads_back(tmp_path: Path) -> None:
    config = load_config(ROOT / "settings/c2d_sifa_resnet50-1x16x1.k400.yml", ["transform.rand_augment={n: 2, m: 9}"])
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_of_patterns_a_files_own_stand_last(tmp_path: Path) -> None:
    """The last that fits a parameter counts."""
    (tmp_path / "base.yml").write_text("optimization: {layer_multipliers: {'*': 0.1, 'fc.*': 1.0}}")
    above = "base: base.yml\noptimization: {layer_multipliers: {'layer1.*': 0.01, '*': 0.5}}"
    multipliers = load_config(write(tmp_path, above)).optimization.layer_multipliers
    assert list(multipliers.items()) == [("fc.*", 1.0), ("layer1.*", 0.01), ("*", 0.5)]


def test_one_epoch_needs_no_other_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "optimization: {epochs: 20, warmup_epoch: 5}", "base.yml")
    for text, changes, expected in (
        ("", ["optimization.epochs=1"], (1, 0)),
        ("base: base.yml", ["optimization.epochs=1"], (1, 0)),
        ("base: base.yml\noptimization: {epochs: 3}", [], (3, 2)),
        ("base: base.yml\noptimization: {epochs: 6}", [], (6, 5)),
    ):
        settings = load_config(write(tmp_path, text), changes).optimization
        assert (settings.epochs, settings.warmup_epoch) == expected
    assert "epochs=1: optimization.warmup_epoch is 0, not 5: there are no more epochs" in caplog.text
    for text, changes in (
        ("base: base.yml", ["optimization.warmup_epoch=20"]),  # asked for, in the same place or later
        ("optimization: {epochs: 2, warmup_epoch: 2}", []),
        ("", ["optimization.epochs=1", "optimization.warmup_epoch=1"]),
    ):
        with pytest.raises(ConfigError, match="warmup_epoch must be below epochs"):
            load_config(write(tmp_path, text), changes)


def test_whose_patterns_may_match_nothing(tmp_path: Path) -> None:
    """Those of a base, and those of the file itself where --set makes it another network."""
    write(tmp_path, "optimization: {layer_multipliers: {'a.*': 2}, freeze: [b.*]}", "base.yml")
    own = "base: base.yml\noptimization: {layer_multipliers: {'c.*': 2}}"
    for text, changes, expected in (
        ("base: base.yml", [], {"a.*", "b.*"}),
        (own, [], {"a.*", "b.*"}),
        (own, ["SIFA.temporal=shift"], {"a.*", "b.*", "c.*"}),
        (own, ["network.width=4", "optimization.layer_multipliers={'d.*': 2}"], {"a.*", "b.*", "c.*"}),
        (own, ["optimization.freeze=[e.*]", "seed=1"], {"a.*"}),
        (own, ["optimization.layer_multipliers={}"], {"b.*"}),
    ):
        assert load_config(write(tmp_path, text), changes).optimization.unused_allowed == expected, changes


def test_a_renamed_key_still_works_and_says_its_new_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "optimization: {learning_rate_for: 96}")
    assert load_config(path).optimization.base_batch_size == 96
    assert f"{path}: optimization.learning_rate_for has a new name, optimization.base_batch_size" in caplog.text
    with pytest.raises(ConfigError, match="learning_rate_for is the old name of base_batch_size: give one of the two"):
        load_config(path, ["optimization.base_batch_size=8"])


WRONG = {
    "list for a key": ("? [a]\n: b", ":1: not valid YAML: a key must be a word"),
    "unknown key": ("optimization: {epoch: 3}", "unknown key optimization.epoch; did you mean epochs?"),
    "unknown section": ("optimisation: {epochs: 3}", "unknown key optimisation; did you mean optimization?"),
    "nothing like it": (
        "transform: {rand_augment: {zz: 3}}",
        "unknown key transform.rand_augment.zz; known are n, m",
    ),
    "wrong type": ("dataset: {num_classes: many}", "dataset.num_classes: input should be a valid integer, got 'many'"),
    "text for a number": ("seed: '3'", "seed: input should be a valid integer, got '3'"),
    "number for a switch": ("deterministic: 1", "deterministic: input should be a valid boolean, got 1"),
    "value for a section": (
        "logging: 3",
        "logging: must be a section with the keys print_freq, save_epoch_freq, save_iter_freq, pictures, wandb, got 3",
    ),
    "impossible value": (
        "dataset: {num_classes: 0}",
        "dataset.num_classes: input should be greater than or equal to 1",
    ),
    "even kernel": (
        "SIFA: {sifa_kernel: [1, 3, 4, 3]}",
        "SIFA.sifa_kernel: must be odd, positive sizes, got [1, 3, 4, 3]",
    ),
    "contradiction": (
        "optimization: {epochs: 3, warmup_epoch: 3}",
        "optimization: warmup_epoch must be below epochs=3, got 3",
    ),
    "time_crop beyond the video": ("transform: {time_crop: [0.5, 1.5]}", "transform.time_crop: must be two shares in"),
    "scale upside down": ("transform: {scale: [1.0, 0.2]}", "transform.scale: must be two shares in increasing order"),
    "template without a number": (
        "dataset: {frame_template: a.jpg}",
        "dataset.frame_template: must be a file name with",
    ),
    "template of gigabytes": (
        "dataset: {frame_template: '{:0999999999d}'}",
        "dataset.frame_template: must be a file name with",
    ),
    "no sections": ("- 1\n- 2\n", "must hold sections with keys, got list"),
    "key twice": ("seed: 1\nseed: 2\n", "settings.yml:2: not valid YAML: key seed twice"),
    "broken YAML": ("dataset:\n  name: [1, 2\nseed: 3\n", "not valid YAML"),
    "code": ("seed: !!python/object/apply:os.system ['true']", "not valid YAML: could not determine a constructor"),
    "missing base": ("base: nowhere.yml", "nowhere.yml does not exist"),
    "base that is no path": ("base: 3", "base must be the path of a file, got 3"),
    "circle": ("base: settings.yml", "is its own base"),
}


BILLION = "a: &a [1, 1]\n" + "".join(
    f"{c}: &{c} [*{b}, *{b}, *{b}, *{b}, *{b}]\n" for b, c in pairwise("abcdefghijklm")
)
HOSTILE = {
    "a bomb of aliases": (BILLION, "its aliases stand for more than 100,000 values"),
    "a value that contains itself": ("dataset: &a {name: *a}", ":1: not valid YAML: the value of &a contains itself"),
    "many levels": ("[" * 5000 + "]" * 5000, ":1: not valid YAML: it has more than 50 levels"),
    "a long text": ("seed: 1\n#" + "x" * 1_000_001, "it has more than 1,000,000 characters"),
    "a tag on a wrong word": ("deterministic: !!bool abc", "not valid YAML"),
    "a tag on nothing": ("seed: !!int ''", "not valid YAML"),
    "a tag on no time": ("seed: !!timestamp abc", "not valid YAML"),
    "5,000 digits": (f"seed: {'9' * 5000}", "not valid YAML: Exceeds the limit"),
    "octal": ("optimization: {epochs: 010}", "optimization.epochs: input should be a valid integer, got '010'"),
    "base 60": ("optimization: {epochs: 1:30}", "optimization.epochs: input should be a valid integer, got '1:30'"),
    "a time that never ends": ("execution: {timeout: 1e300}", "execution.timeout: input should be less than or equal"),
    "a clip larger than memory": ("dataset: {clip_length: 1000000000}", "dataset.clip_length: input should be less"),
    "a network of one channel, whose convolutions are unsafe": (
        "network: {width: 1}",
        "network.width: input should be greater",
    ),
    "a network larger than memory": ("network: {width: 4096}", "network.width: input should be less than or equal"),
    "NUL in a name": ('base: "a\\0b"', "cannot be read: embedded null byte"),
    "a surrogate in a name": ('base: "a\\ud800b"', "cannot be read"),
}
WRONG |= HOSTILE


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yml").symlink_to("b.yml")
    (tmp_path / "b.yml").symlink_to("a.yml")
    (tmp_path / "settings.yml").write_text("base: a.yml\n")
    for name in ("a.yml", "settings.yml"):
        with pytest.raises(ConfigError, match=r"a\.yml' cannot be read: .*symbolic links"):
            load_config(tmp_path / name)


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_in_a_file(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_config(path)
    assert str(tmp_path) in str(caught.value), "the message names the file"
    assert "\n" not in str(caught.value)


def test_the_file_that_is_wrong_is_named_not_the_one_over_it(tmp_path: Path) -> None:
    write(tmp_path, "dataset: {num_clases: 3}", "base.yml")
    path = write(tmp_path, "base: base.yml\ndataset: {name: x}\n")
    with pytest.raises(ConfigError, match=r"base\.yml: unknown key dataset\.num_clases; did you mean num_classes\?"):
        load_config(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed", "--set takes section.key=value, got 'seed'"),
        ("=3", "--set takes section.key=value, got '=3'"),
        ("dataset..name=3", "--set takes section.key=value, got 'dataset..name=3'"),
        ("seed.x=3", "--set seed.x=3: seed: input should be a valid integer"),
        ("optimization.epochs=[", "--set optimization.epochs=[: not valid YAML"),
        ("optimization.epocs=3", "--set optimization.epocs=3: unknown key optimization.epocs; did you mean epochs?"),
    ],
)
def test_mistakes_in_a_change(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(write(tmp_path, "seed: 1"), [change])


def test_a_long_chain_of_bases_and_a_base_that_is_no_file(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1", "0.yml")
    for number in range(1, 1500):
        write(tmp_path, f"base: {number - 1}.yml", f"{number}.yml")
    assert load_config(tmp_path / "20.yml").seed == 1
    with pytest.raises(ConfigError, match="there are more than 20 bases below it"):
        load_config(tmp_path / "1499.yml")
    os.mkfifo(tmp_path / "pipe.yml")
    with pytest.raises(ConfigError, match=r"pipe\.yml is not a regular file"):
        load_config(tmp_path / "pipe.yml")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("SIFA: {temporal: conv, offset: difference}", "SIFA.offset"),
        ("SIFA: {offset: regular, offset_init: kaiming}", "SIFA.offset_init"),
        (
            "network: {net_name: c2d_sifa_swin_vit_s_p4_w7}\noptimization: {batch_norm: frozen}",
            "optimization.batch_norm",
        ),
        ("optimization: {freeze_epochs: 2}", "optimization.freeze_epochs"),
        ("transform: {short_side: [256, 320], scale: [0.5, 1.0]}", "transform.scale"),
        ("dataset: {format: VIDEO, first_frame: 0}", "dataset.first_frame"),
    ],
)
def test_a_key_without_effect_is_named_once(
    text: str, key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, text)
    load_config(path)
    assert caplog.text.count("has no effect") == 1
    assert f"{path}: {key} has no effect: " in caplog.text


def test_inherited_keys_without_effect_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    for path in ROOT.glob("settings/**/*.yml"):
        load_config(path)
    assert caplog.text == ""


def test_an_empty_mapping_clears_an_inherited_one(tmp_path: Path) -> None:
    write(tmp_path, "optimization: {layer_multipliers: {'*.offset.*': 0.1}, epochs: 7}", "base.yml")
    config = load_config(write(tmp_path, "base: base.yml\noptimization: {layer_multipliers: {}}"))
    assert (config.optimization.layer_multipliers, config.optimization.epochs) == ({}, 7)
    config = load_config(tmp_path / "base.yml", ["optimization.layer_multipliers={}"])
    assert config.optimization.layer_multipliers == {}
    assert load_config(tmp_path / "base.yml", ["optimization={}"]).optimization.epochs == 7


def test_a_path_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config = load_config(write(tmp_path, "dataset: {list_file: ~/list.txt}"), ["network.pretrained_model=~/r50.pth"])
    assert config.dataset.list_file == "/home/someone/list.txt"
    assert config.network.pretrained_model == "/home/someone/r50.pth"


def test_a_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"configuration file nowhere\.yml does not exist"):
        load_config("nowhere.yml")


def test_the_releases_values() -> None:
    """SIFA.md, section 3: what the file for 16 frames must say."""
    config = load_config(ROOT / "settings/c2d_sifa_resnet50-1x16x1.k400.yml")
    settings = config.optimization
    assert (settings.base_learning_rate, settings.warmup_epoch, settings.warmup_multiplier) == (0.04, 1, 100)
    assert (settings.epochs, settings.batch_size, settings.iter_size, settings.loss_weight) == (64, 24, 4, 4)
    assert (settings.momentum, settings.weight_decay, settings.clip_gradient) == (0.9, 1e-4, 40)
    assert settings.min_learning_rate == 1e-6
    assert not settings.nesterov
    assert (config.dataset.num_segments, config.dataset.clip_length, config.dataset.num_steps) == (1, 16, 1)
    assert (config.dataset.num_classes, config.transform.crop_size, config.network.dropout_ratio) == (400, 224, 0.5)
    base = load_config(ROOT / "base_config/ssv1_base.yml")
    assert (base.optimization.base_learning_rate, base.optimization.warmup_epoch, base.dataset.num_classes) == (
        0.02,
        5,
        174,
    )
    assert base.transform.rand_augment is not None
    assert (base.transform.rand_augment.n, base.transform.rand_augment.m) == (2, 27)
    assert not base.transform.horizontal_flip
    assert load_config(ROOT / "base_config/kinetics_base.yml").optimization.epochs == 128


@pytest.mark.parametrize("path", sorted(ROOT.glob("settings/*.yml")) + sorted(ROOT.glob("base_config/*.yml")), ids=str)
def test_every_file_that_ships_is_valid(path: Path) -> None:
    assert yaml.safe_load(dump_config(load_config(path)))
