"""Presets: laid over params.yaml and under --set; those of the papers are complete and load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raregrade.config import AugmentConfig, TrainConfig, dump_params, load_params, merged_params, merged_text
from raregrade.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAPERS = sorted((ROOT / "src" / "raregrade" / "presets" / "papers").glob("*.yaml"))
# The parameters whose labels a preset fits, by the beginning of its name.
FITTING = {
    "cdw_ce": "params.yaml",
    "lmf": "src/raregrade/presets/phantom/imbalanced.yaml",
    "two_stage": "src/raregrade/presets/phantom/imbalanced.yaml",
    "hbce": "src/raregrade/presets/phantom/hierarchical.yaml",
}
# What a machine is able to do, and where weights lie on it, is not a paper's to say.
MACHINE = {"weights", "accumulate", "precision", "compile", "deterministic", "threads"}

Write = Callable[[str, Any], Path]


def fitting(preset: Path) -> Path:
    return ROOT / next(file for name, file in FITTING.items() if preset.stem.startswith(name))


@pytest.fixture
def write(tmp_path: Path, valid: dict[str, Any]) -> Write:
    """``write(name, keys)`` writes a file; params.yaml, valid, is there already."""

    def write_file(name: str, keys: Any) -> Path:
        path = tmp_path / name
        path.write_text(keys if isinstance(keys, str) else yaml.safe_dump(keys, sort_keys=False))
        return path

    write_file("params.yaml", valid | {"train": {"epochs": 7, "lr": 0.5, "backbone": "resnet34"}})
    return write_file


def test_a_preset_goes_over_params_and_under_set(write: Write, tmp_path: Path) -> None:
    first = write("first.yaml", {"train": {"epochs": 9, "lr": 0.25, "batch_size": 8}})
    second = write("second.yaml", {"train": {"lr": 0.125}})
    train = load_params(tmp_path / "params.yaml", ["train.batch_size=2"], [first, second]).train
    assert (train.backbone, train.epochs, train.lr, train.batch_size) == ("resnet34", 9, 0.125, 2)


def test_sections_merge_and_lists_are_replaced(write: Write, tmp_path: Path) -> None:
    preset = write("p.yaml", {"train": {"augment": {"scale": 0.5}}, "compare": {"losses": ["ce", "strong"]}})
    params = load_params(tmp_path / "params.yaml", ["train.augment.translate=0.25"], [preset])
    assert (params.train.augment.scale, params.train.augment.translate) == (0.5, 0.25)
    assert (params.compare.losses, params.compare.seeds) == (["ce", "strong"], [1, 2])


def test_a_loss_is_replaced_whole(write: Write, tmp_path: Path) -> None:
    preset = write("p.yaml", {"losses": {"cdw_ce": {"margin": 0.1}}})
    params = load_params(tmp_path / "params.yaml", presets=[preset])
    assert params.losses["cdw_ce"].params.model_dump()["power"] == 5.0  # the default, not params.yaml's 2
    assert set(params.losses) == {"ce", "cdw_ce", "strong"}


@pytest.mark.parametrize(
    ("preset", "overrides", "said"),
    [
        ({"train": {"epoch": 3}}, [], ["train.epoch: unknown key", "did you mean 'epochs'", "(set in {preset})"]),
        ({"train": {"epochs": 0}}, [], ["train.epochs = 0", "(set in {preset})"]),
        ({"losses": {"cdw_ce": {"powr": 3}}}, [], ["losses.cdw_ce.powr", "(set in {preset})"]),
        ({"data": {"classes": ["a", 1, "c"]}}, [], ["data.classes.1 = 1", "(set in {preset})"]),
        ({"train": 3}, [], ["train = 3", "(set in {preset})"]),
        ({"train": {"epochs": 5}}, ["train.epochs=0"], ["train.epochs = 0", "(given by --set)"]),
        ({"train": {"epochs": 5}}, ["train.lr=-1"], ["train.lr = -1", "(given by --set)"]),
    ],
)
def test_what_is_wrong_is_told_with_where_it_is_from(
    write: Write, tmp_path: Path, preset: Any, overrides: list[str], said: list[str]
) -> None:
    path = write("p.yaml", preset)
    with pytest.raises(ConfigError) as caught:
        load_params(tmp_path / "params.yaml", overrides, [path])
    message = str(caught.value)
    assert f"{tmp_path / 'params.yaml'} with {path} is wrong" in message
    for part in said:
        assert part.format(preset=path) in message


def test_what_is_wrong_in_params_is_not_blamed_on_a_preset(write: Write, tmp_path: Path) -> None:
    write("params.yaml", yaml.safe_load((tmp_path / "params.yaml").read_text()) | {"seed": -1})
    with pytest.raises(ConfigError) as caught:
        load_params(tmp_path / "params.yaml", presets=[write("p.yaml", {"train": {"epochs": 5}})])
    assert "seed = -1" in str(caught.value)
    assert "set in" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("", "expected keys and values at the top"), ("- 1\n", "got list"), ("a: [", "not valid YAML")]
)
def test_a_preset_without_keys_is_refused_by_its_name(write: Write, tmp_path: Path, text: str, said: str) -> None:
    preset = write("p.yaml", text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_params(tmp_path / "params.yaml", presets=[preset])
    assert str(preset) in str(caught.value)


def test_a_preset_that_is_not_there_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*gone\.yaml.*--preset"):
        load_params(tmp_path / "params.yaml", presets=[tmp_path / "gone.yaml"])


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
        | st.sampled_from(["1e3", "no", "010", "1_0", ".5", "true", "1:30", "null", "~", "0x1F", "2026-01-01"])
        | st.sampled_from(["a\x85b", "\u2028"]),
        lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    )
)  # fmt: skip
def test_merged_parameters_read_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("dump") / "params.yaml"
    path.write_text(dump_params({"key": value}), encoding="utf-8")
    assert merged_params(path) == {"key": value}


def test_merged_parameters_are_those_that_run(write: Write, tmp_path: Path) -> None:
    presets = [write("p.yaml", {"train": {"lr": "2.0e-4", "epochs": 3}})]
    presets[0].write_text("train: {lr: 2e-4, epochs: 3}\nlosses: {cdw_ce: {power: 3.0}}\n")
    overrides = ["train.batch_size=4", "tracking.experiment='1e3'"]
    text = dump_params(merged_params(tmp_path / "params.yaml", overrides, presets))
    merged = write("merged.yaml", text)
    assert load_params(merged) == load_params(tmp_path / "params.yaml", overrides, presets)


@pytest.mark.parametrize("preset", PAPERS, ids=lambda p: p.stem)
def test_the_preset_of_a_paper_loads_over_parameters_that_it_fits(preset: Path) -> None:
    params = load_params(fitting(preset), presets=[preset])
    assert params.compare.baseline in params.compare.losses
    assert params.compare.losses[-1].startswith(("cdw_ce", "lmf", "hbce", "two_stage"))
    assert params.selection_metric != "auto"
    merged = dump_params(merged_params(fitting(preset), presets=[preset]))
    assert "image_size" in merged


@pytest.mark.parametrize("preset", PAPERS, ids=lambda p: p.stem)
def test_the_preset_of_a_paper_leaves_nothing_about_training_to_params(preset: Path) -> None:
    raw = yaml.safe_load(preset.read_text())
    assert set(raw) == {"data", "train", "losses", "compare"}
    assert set(raw["data"]) == {"image_size"}
    assert set(raw["train"]) == set(TrainConfig.model_fields) - MACHINE
    assert set(raw["train"]["augment"]) == set(AugmentConfig.model_fields)
    assert set(raw["compare"]) == {"losses", "baseline"}
    assert set(raw["losses"]) == set(raw["compare"]["losses"])


def test_there_is_a_preset_for_every_paper_and_network() -> None:
    assert [p.stem for p in PAPERS] == [
        "cdw_ce_inception_v3", "cdw_ce_mobilenetv3_large", "cdw_ce_resnet18", "hbce",
        "lmf_densenet121", "lmf_efficientnetv2_s", "lmf_resnet50", "two_stage",
    ]  # fmt: skip


def test_a_preset_for_other_labels_is_refused(write: Write) -> None:
    preset = ROOT / "src" / "raregrade" / "presets" / "papers" / "cdw_ce_resnet18.yaml"
    with pytest.raises(ConfigError, match=r"cdw_ce fits task ordinal, but data\.task is multiclass"):
        load_params(ROOT / "src" / "raregrade" / "presets" / "phantom" / "imbalanced.yaml", presets=[preset])


def test_comments_stay_where_values_change(tmp_path: Path, valid: dict[str, Any]) -> None:
    path = tmp_path / "params.yaml"
    text = "# about the project\n" + yaml.safe_dump(valid | {"train": {"epochs": 7}}, sort_keys=False)
    path.write_text(text.replace("  epochs: 7\n", "  # so few for a trial\n  epochs: 7 # of training\n"))
    result = merged_text(path, ["train.epochs=9", "train.backbone=resnet34", "seed=3"])
    assert "# about the project\n" in result
    assert "  # so few for a trial\n  epochs: 9 # of training\n  backbone: resnet34\n" in result
    assert result.endswith("seed: 3\n")
    path.write_text(result)
    assert merged_text(path) == result


@pytest.mark.parametrize("preset", PAPERS, ids=lambda path: path.stem)
def test_the_text_of_merged_layers_reads_back_to_their_values(preset: Path, tmp_path: Path) -> None:
    text = merged_text(fitting(preset), ["train.lr=1e-3", "train.backbone='010'"], [preset])
    merged = merged_params(fitting(preset), ["train.lr=1e-3", "train.backbone='010'"], [preset])
    (tmp_path / "params.yaml").write_text(text)
    assert merged_params(tmp_path / "params.yaml") == merged
    comments = [line for line in fitting(preset).read_text().splitlines() if line.startswith("#")]
    assert all(line in text for line in comments)
