"""Starting points from earlier studies, of this dataset or another: the best settings that they found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raregrade.config import LossChoice, StudyStorage
from raregrade.config.tuned import read_best
from raregrade.errors import ConfigError
from raregrade.schema import Scalar

# Of each earlier study: a few, since another dataset's best need not be this one's.
PER_STUDY = 3


def warm_starts(places: Sequence[str], loss: LossChoice) -> list[dict[str, Scalar]]:
    """The best settings in ``places``, best first within each: values by name as a search space names them.

    Args:
        places: ``best.yaml`` files, or storages of studies (see ``tune.storage``). One list serves every tuned loss
            and the baseline, so what is of another kind of loss is passed over.
        loss: what is tuned.

    Raises:
        ConfigError: a file that is missing or no best.yaml.
        UserError: a storage that cannot be opened.
    """
    found: list[dict[str, Scalar]] = []
    for place in places:
        if place.endswith((".yaml", ".yml")):
            found += _of_file(Path(place), loss)
        else:
            found += _of_storage(place, loss)
    return found


def _of_file(path: Path, loss: LossChoice) -> list[dict[str, Scalar]]:
    best = read_best(path)
    if best["kind"] != loss.kind:
        return []
    top: list[dict[str, Any]] = best.get("top") or []
    return [dict(entry["values"]) for entry in top[:PER_STUDY]]


def _of_storage(url: str, loss: LossChoice) -> list[dict[str, Scalar]]:
    import optuna  # noqa: PLC0415

    from raregrade.tuning.storage import open_storage  # noqa: PLC0415
    from raregrade.tuning.study import best_trials  # noqa: PLC0415

    if "://" not in url and not Path(url).is_file():
        raise ConfigError(f"tune.warm_start: {url}: no such file; name a best.yaml or a storage of studies")
    shared = open_storage(StudyStorage(url=url))
    found: list[dict[str, Scalar]] = []
    for name in sorted(optuna.get_all_study_names(shared.storage)):
        study = optuna.load_study(study_name=name, storage=shared.storage)
        searched = study.user_attrs.get("kind") == loss.kind and not name.startswith("confirm-")
        if searched and study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
            found += [dict(trial.params) for trial in best_trials(study)[:PER_STUDY]]
    return found
