"""The base of every object read from params.yaml: unknown keys, wrong types and changes are refused."""

from pydantic import BaseModel, ConfigDict


class ConfigModel(BaseModel):
    """Frozen, strict (no silent conversion of "3" to 3), and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
