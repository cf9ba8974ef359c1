"""Options that several commands share, and what they become. Commands live in the modules beside this one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raregrade.cli.completion import complete_loss, complete_preset
from raregrade.errors import UserError

if TYPE_CHECKING:
    from raregrade.config import Params, Settings
    from raregrade.tracking import Tracking

PARAMS = Path("params.yaml")
ParamsOption = Annotated[
    Path,
    typer.Option("--params", metavar="FILE", help="The parameters file; by default the nearest params.yaml upwards."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one key of the parameters. Repeatable."),
]
PresetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        metavar="NAME|FILE",
        autocompletion=complete_preset,
        help="Lay a preset over the parameters: one of `raregrade presets`, or a file. Repeatable.",
    ),
]
LossOption = Annotated[
    str,
    typer.Option(
        "--loss", metavar="NAME", autocompletion=complete_loss, help="A name under `losses` in the parameters."
    ),
]
DataOption = Annotated[Path, typer.Option("--data", metavar="FOLDER", help="The prepared dataset.")]


@dataclass(frozen=True)
class ParamsOptions:
    """--params, --preset and --set, which every command takes that reads params.yaml."""

    params: ParamsOption = PARAMS
    preset: PresetOption = None
    set_: SetOption = None

    def read(self, *forced: str, defaults: Sequence[str] = ()) -> Params:
        """The validated parameters. Raises ConfigError.

        Args:
            forced: ``key=value`` each, laid over what --set gives.
            defaults: the same, laid under it.
        """
        return read_params(self.params, [*defaults, *(self.set_ or ()), *forced], self.preset)

    def read_settings(self, *forced: str) -> Settings:
        """As ``read`` for a command that trains no loss: it needs no torch, which the losses import."""
        from raregrade.config import load_settings

        config = load_settings(self.params, [*(self.set_ or ()), *forced], self.preset or ())
        _tell_version(self.params, config)
        return config


def read_params(path: Path, overrides: list[str] | None, presets: Sequence[str | Path] | None = None) -> Params:
    """The validated parameters of a command. Raises ConfigError."""
    from raregrade.config import load_params

    config = load_params(path, overrides or (), presets or ())
    _tell_version(path, config)
    return config


def _tell_version(path: Path, config: Settings) -> None:
    from raregrade import __version__

    if config.raregrade.version != __version__:
        print(
            f"{path} was made for raregrade {config.raregrade.version} and this is {__version__}: "
            "`raregrade upgrade` says what changed.",
            file=sys.stderr,
        )


def tracking_of(params: Settings) -> Tracking:
    """Where the commands of these parameters log their runs."""
    from raregrade.tracking import Tracking

    return Tracking.of(params)


def folders_holding(name: str, roots: list[Path], *, levels: int = 2) -> list[Path]:
    """Folders that hold a file ``name``: each of ``roots``, or what lies up to ``levels`` levels below it.

    Raises:
        UserError: a root that does not exist, or that has no such file.
    """
    found: list[Path] = []
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{root}: no such folder. Give folders that hold {name}.")
        here = (
            [root / name]
            if (root / name).is_file()
            else [found for level in range(1, levels + 1) for found in root.glob(f"{'*/' * level}{name}")]
        )
        if not here:
            raise UserError(f"{root}: no {name} in it, nor up to {'two' if levels == 2 else levels} levels below.")
        found += sorted(file.parent for file in here)
    return list(dict.fromkeys(found))


def read_json(path: Path, advice: str) -> Any:
    """The content of a JSON file. Raises UserError, ending in ``advice``, where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise UserError(f"{path}: no such file. {advice}") from err
    except (OSError, ValueError) as err:
        raise UserError(f"{path} cannot be read: {err}. {advice}") from err
