"""params.yaml as typed, validated objects.

``load_params`` reads and checks the whole file before anything runs; ``Params.section`` hands a step
the part that it may read, and nothing else. Needs neither torch nor mlflow.
"""

from raregrade.config.data import WAIVABLE, DataConfig, SplitConfig
from raregrade.config.evaluation import CompareConfig, EvaluateConfig
from raregrade.config.gate import AlarmConfig, GateRule, RegisterConfig
from raregrade.config.load import dump_params, load_params, merged_params, merged_text, params_from_dict
from raregrade.config.losses import LOSS_PARAMS, LossParams
from raregrade.config.metrics import LOWER_IS_BETTER, METRIC_TASKS
from raregrade.config.model import LossChoice, MadeFor, Params, PhantomConfig, StepVersions, TrackingConfig
from raregrade.config.sections import (
    CompareSection,
    EvaluateSection,
    PhantomSection,
    PrepareSection,
    RegisterSection,
    TrainSection,
    TuneSection,
    section,
    section_keys,
)
from raregrade.config.training import AugmentConfig, TrainConfig
from raregrade.config.tuning import StudyConfig, StudyStorage, TuneConfig

__all__ = [
    "LOSS_PARAMS",
    "LOWER_IS_BETTER",
    "METRIC_TASKS",
    "WAIVABLE",
    "AlarmConfig",
    "AugmentConfig",
    "CompareConfig",
    "CompareSection",
    "DataConfig",
    "EvaluateConfig",
    "EvaluateSection",
    "GateRule",
    "LossChoice",
    "LossParams",
    "MadeFor",
    "Params",
    "PhantomConfig",
    "PhantomSection",
    "PrepareSection",
    "RegisterConfig",
    "RegisterSection",
    "SplitConfig",
    "StepVersions",
    "StudyConfig",
    "StudyStorage",
    "TrackingConfig",
    "TrainConfig",
    "TrainSection",
    "TuneConfig",
    "TuneSection",
    "dump_params",
    "load_params",
    "merged_params",
    "merged_text",
    "params_from_dict",
    "section",
    "section_keys",
]
