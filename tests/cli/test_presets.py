"""--preset on the command line, and each paper's preset from raw images to a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raregrade.cli import main
from raregrade.config import load_params, section
from raregrade.models.folder import read_card

ROOT = Path(__file__).parents[2]
PAPERS = ROOT / "src" / "raregrade" / "presets" / "papers"
FITTING = {
    "cdw_ce": ROOT / "params.yaml",
    "lmf": ROOT / "src" / "raregrade" / "presets" / "phantom" / "imbalanced.yaml",
    "two_stage": ROOT / "src" / "raregrade" / "presets" / "phantom" / "imbalanced.yaml",
    "hbce": ROOT / "src" / "raregrade" / "presets" / "phantom" / "hierarchical.yaml",
}


def parameters_for(preset: str) -> Path:
    return next(path for name, path in FITTING.items() if preset.startswith(name))


def test_params_prints_what_a_preset_and_set_come_to(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = str(PAPERS / "cdw_ce_resnet18.yaml")
    arguments = ["params", "--params", str(project / "params.yaml"), "--preset", preset, "--set", "train.epochs=40"]
    assert main.run(arguments) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["train"]["epochs"], printed["train"]["batch_size"], printed["data"]["path"]) == (40, 64, "raw")


def test_a_shipped_preset_goes_by_its_name(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(project / "params.yaml")
    assert main.run(["params", "--params", path, "--preset", "cdw_ce_resnet18"]) == 0
    by_name = capsys.readouterr().out
    assert main.run(["params", "--params", path, "--preset", str(PAPERS / "cdw_ce_resnet18.yaml")]) == 0
    assert capsys.readouterr().out == by_name


def test_an_unknown_preset_is_refused_with_those_there_are(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["params", "--params", str(project / "params.yaml"), "--preset", "cdw_ce_resnet"]) == 2
    said = capsys.readouterr().err
    assert "preset 'cdw_ce_resnet': no such file, and no preset of that name" in said
    assert "did you mean 'cdw_ce_resnet18'?" in said
    assert all(path.stem in said for path in PAPERS.glob("*.yaml"))


def test_presets_lists_each_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["presets"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    listed = [row.split(maxsplit=1) for row in rows]
    assert {row[0] for row in listed} == {path.stem for path in PAPERS.parent.rglob("*.yaml")}
    assert all(row[1].endswith(".") for row in listed), "the first line of a preset is a whole sentence"


def test_presets_prints_a_phantom_as_a_whole_parameters_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("short", "imbalanced", "hierarchical"):
        assert main.run(["presets", name]) == 0
        (tmp_path / "params.yaml").write_text(capsys.readouterr().out)
        assert load_params(tmp_path / "params.yaml") == load_params(PAPERS.parent / "phantom" / f"{name}.yaml")
    assert main.run(["presets", "nothing"]) == 2


def test_params_replaces_the_file_that_it_read(project: Path) -> None:
    path = project / "params.yaml"
    expected = load_params(path, presets=[PAPERS / "cdw_ce_resnet18.yaml"])
    arguments = ["params", "--params", str(path), "--preset", str(PAPERS / "cdw_ce_resnet18.yaml"), "--out", str(path)]
    assert main.run(arguments) == 0
    assert load_params(path) == expected


def test_params_that_are_wrong_are_refused_and_nothing_is_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "params.yaml"
    before = path.read_text()
    (project / "p.yaml").write_text("train: {epochs: 0}\n")
    assert main.run(["params", "--params", str(path), "--preset", str(project / "p.yaml"), "--out", str(path)]) == 2
    assert "train.epochs = 0" in capsys.readouterr().err
    assert path.read_text() == before


def test_every_command_with_params_takes_presets(project: Path) -> None:
    import typer

    from raregrade.cli.app import app

    def walk(command: object, name: str) -> list[str]:
        below = getattr(command, "commands", {})
        options = {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]
        missing = [name] if "--params" in options and "--preset" not in options else []
        return missing + [found for key, sub in below.items() for found in walk(sub, f"{name} {key}")]

    # upgrade rewrites the file itself.
    assert walk(typer.main.get_command(app), "raregrade") == ["raregrade upgrade"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "loss", "epochs"),
    [("cdw_ce_resnet18", "cdw_ce", 4), ("cdw_ce_mobilenetv3_large", "cdw_ce", 4), ("two_stage", "two_stage", 2)],
)
def test_a_preset_trains_from_raw_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, loss: str, epochs: int
) -> None:
    """A few epochs of the real thing: small images, few of them, no pretrained weights."""
    monkeypatch.chdir(tmp_path)
    small = ["phantom.patients=150", "phantom.max_images_per_patient=1", "phantom.image_size=32", "data.path=raw"]
    small += ["data.image_size=32", "train.pretrained=false", f"train.epochs={epochs}", "tracking.uri=none"]
    small += ["train.threads=1", "train.precision=float32", "train.batch_size=32"]
    small += ["train.lr_epochs=1", "train.early_stopping=null"]  # as docs/training.md says for so few epochs
    common = ["--params", str(parameters_for(preset)), "--preset", str(PAPERS / f"{preset}.yaml")]
    common += [part for key in small for part in ("--set", key)]
    assert main.run(["phantom", "--out", "raw", *common]) == 0
    assert main.run(["prepare", "--out", "prepared", *common]) == 0
    assert main.run(["train", "--data", "prepared", "--loss", loss, "--out", "model", *common]) == 0
    card = read_card(tmp_path / "model")
    asked = yaml.safe_load((PAPERS / f"{preset}.yaml").read_text())["train"]
    for key in ("backbone", "optimizer", "lr", "schedule", "sampler", "augment", "dropout"):
        assert card["train"][key] == asked[key]
    assert card["selection"]["metric"] == asked["selection_metric"]


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(path.stem for path in PAPERS.glob("*.yaml")))
def test_the_network_of_a_preset_takes_its_images(preset: str) -> None:
    import torch

    from raregrade.models.backbone import build_model

    params = load_params(parameters_for(preset), ["train.pretrained=false"], [PAPERS / f"{preset}.yaml"])
    train = section(params, "train", params.compare.losses[-1]).train
    size = params.data.image_size
    model = build_model(train, channels=3, num_outputs=len(params.data.classes), image_size=size)
    outputs = model.forward_train(torch.zeros(2, 3, size, size, dtype=torch.uint8))
    assert outputs.logits.shape == (2, len(params.data.classes))
    assert (outputs.aux_logits is not None) == preset.endswith("inception_v3")


@pytest.mark.parametrize("preset", sorted(path.stem for path in PAPERS.glob("*.yaml")))
def test_the_weights_that_a_preset_asks_for_exist(preset: str) -> None:
    import timm

    train = load_params(parameters_for(preset), presets=[PAPERS / f"{preset}.yaml"]).train
    assert timm.is_model(train.backbone)
    if train.pretrained:
        assert train.backbone in timm.list_pretrained(), "the tag says whose weights these are"
