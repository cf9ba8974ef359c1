"""Reading params.yaml, presets and ``--set`` overrides, and saying what is wrong with them.

A preset is a parameters file that need not be complete: its keys replace those of params.yaml, and ``--set`` replaces
both. Losses are replaced whole, since a paper's settings mixed with others are no longer the paper's.

YAML is read as YAML 1.2 has it (``1e-3`` is a number, ``no`` is a word), as DVC reads the same file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from raregrade.config.comments import with_values_of
from raregrade.config.model import LossChoice, Params, Settings
from raregrade.config.presets import preset_file
from raregrade.errors import ConfigError, did_you_mean
from raregrade.losses import LOSSES

Model = TypeVar("Model", bound=Settings)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} cannot be a key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    char: [(tag, regexp) for tag, regexp in resolvers if tag.rsplit(":", 1)[-1] not in ("bool", "float", "int")]
    for char, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+.0123456789"),
)


class _Dumper(yaml.SafeDumper):
    """Quotes the words that ``_Loader`` would read as something else."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Single quotes would fold Unicode's own line breaks into spaces; double ones escape them.
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Dumper.add_representer(str, _represent_text)

# How pydantic names the alternatives of a union within the location of an error.
_TYPE_BRANCH = re.compile(r"(?:str|int|float|bool|constrained-\w+|(?:list|dict|tuple|literal|function)[-\[].*)")


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # YAML 1.1 would read 010 as octal


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def load_params(
    path: str | Path = "params.yaml", overrides: Sequence[str] = (), presets: Sequence[str | Path] = ()
) -> Params:
    """Read ``path``, lay ``presets`` and then ``overrides`` over it, and validate. Imports torch, as losses do.

    Args:
        path: a YAML file.
        overrides: ``key=value`` each, the key dotted (``train.epochs=3``), the value read as YAML.
        presets: names of shipped presets, or YAML files of the same form with some of the keys; a later one goes before
            an earlier one.

    Raises:
        ConfigError: no such file, not YAML, or a wrong key, type, value or combination; names each, and the preset
            that it stands in.
    """
    return _load(Params, path, overrides, presets)


def load_settings(
    path: str | Path = "params.yaml", overrides: Sequence[str] = (), presets: Sequence[str | Path] = ()
) -> Settings:
    """As ``load_params``, without a look at the parameters of the losses."""
    return _load(Settings, path, overrides, presets)


def _load(model: type[Model], path: str | Path, overrides: Sequence[str], presets: Sequence[str | Path]) -> Model:
    layers = {str(preset): _read_mapping(preset_file(preset)) for preset in presets}

    def origin(key: str) -> str:
        if any(key == given or key.startswith(f"{given}.") for given in (o.partition("=")[0] for o in overrides)):
            return " (given by --set)"
        name = next((name for name, layer in reversed(layers.items()) if _holds(layer, key)), None)
        return f" (set in {name})" if name else ""

    where = " with ".join([str(path), *layers])
    raw = merged_params(path, overrides, presets)
    _validated(Settings, raw, where, origin if layers else None)  # what is wrong outside the losses, before torch comes
    return _validated(model, raw, where, origin if layers else None)


def merged_params(
    path: str | Path = "params.yaml", overrides: Sequence[str] = (), presets: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """The keys and values that ``load_params`` validates, as the files have them, without defaults.

    Raises:
        ConfigError: no such file, not YAML, or an override that is no key and value.
    """
    raw = _read_mapping(Path(path))
    for preset in presets:
        _lay_over(raw, _read_mapping(preset_file(preset)))
    for override in overrides:
        _apply_override(raw, override)
    return raw


def merged_text(path: str | Path, overrides: Sequence[str] = (), presets: Sequence[str | Path] = ()) -> str:
    """What ``merged_params`` gives as the text of a parameters file, with the comments of ``path``.

    Raises:
        ConfigError: as ``merged_params``.
    """
    merged = merged_params(path, overrides, presets)
    text = with_values_of(Path(path).read_text(encoding="utf-8"), merged)
    return text if _canonical(_parse_yaml(text, str(path))) == _canonical(merged) else dump_params(merged)


def _canonical(raw: Any) -> str:
    """The same for the same values: 1, 1.0 and true differ, the order of keys does not count."""
    return json.dumps(raw, sort_keys=True, default=repr)


def dump_params(raw: dict[str, Any] | list[Any]) -> str:
    """``raw`` as the text of a parameters file, which reads back to the same values."""
    text: str = yaml.dump(raw, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return text


def params_from_dict(raw: dict[str, Any]) -> Params:
    """Validate a nested dictionary of the form of params.yaml.

    Raises:
        ConfigError: a wrong key, type, value or combination; names each.
    """
    return _validated(Params, raw, "params", None)


def _validated(model: type[Model], raw: dict[str, Any], where: str, origin: Callable[[str], str] | None) -> Model:
    """``raw`` as ``model``. Errors name it ``where``; ``origin`` says where a key is from, in words to end a line."""
    problems: list[str] = []
    losses: dict[str, Any] = {}
    raw_losses = raw.get("losses")
    if not isinstance(raw_losses, dict) or not raw_losses:
        problems.append(f"losses = {raw_losses!r}: expected one key a loss, such as `losses: {{ce: {{}}}}`")
    else:
        for name, value in raw_losses.items():
            kind, settings = _kind_and_settings(str(name), value, problems)
            if kind is None:
                continue
            entry: Any = {"kind": kind, **settings}
            if model is Params:
                entry = _loss_choice(str(name), kind, settings, problems)
            if entry is not None:
                losses[str(name)] = entry
    # A loss that is wrong is not defined either: what the keys say of one another is looked at once each is right.
    known_wrong = {("losses",), ()} if problems else {("losses",)}
    try:
        params = model.model_validate({**raw, "losses": losses})
    except ValidationError as err:
        problems += _describe_all([e for e in err.errors() if e["loc"][:1] not in known_wrong], "", Params)
    if problems:
        if origin is not None:
            problems = [problem + origin(_key_of(problem)) for problem in problems]
        raise ConfigError("\n".join([f"{where} is wrong:", *(f"  {p}" for p in problems)]))
    return params


def _key_of(problem: str) -> str:
    """The dotted key that a line about a problem begins with."""
    match = re.match(r"[^\s:=]+", problem)
    return match.group() if match else ""


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"cannot read {path}: {err}. Give the parameters file with --params and what goes over it with --preset, "
            "or run from the folder that holds params.yaml."
        ) from err
    raw = _parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, got {type(raw).__name__}")
    return raw


def _lay_over(raw: dict[str, Any], layer: dict[str, Any], *, merge_below: bool = True) -> None:
    """Replace in ``raw`` what ``layer`` holds. Sections merge key by key, and each loss is one value."""
    for key, value in layer.items():
        if merge_below and isinstance(value, dict) and isinstance(raw.get(key), dict):
            _lay_over(raw[key], value, merge_below=key != "losses")
        else:
            raw[key] = value


def _holds(layer: Any, key: str) -> bool:
    """Whether ``layer`` sets ``key``, or a value of which ``key`` is a part."""
    for part in key.split("."):
        if not isinstance(layer, dict):
            return True
        if part not in layer:
            return False
        layer = layer[part]
    return True


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as err:
        raise ConfigError(f"{where} is not valid YAML: {err}") from err


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {override!r}: expected key=value, such as train.epochs=20")
    node = raw
    *parents, last = key.split(".")
    for part in parents:
        if node.get(part) is None:  # absent, or a section with nothing below it
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(
                f"--set {override!r}: {part!r} holds a value, not keys; see params.yaml for what there is"
            )
    node[last] = _parse_yaml(text, f"--set {override}")


def _kind_and_settings(name: str, value: Any, problems: list[str]) -> tuple[str | None, dict[str, Any]]:
    """The loss that an entry of ``losses`` is a setting of, None where it is wrong, and its parameters, unread."""
    if value is None:
        value = {}
    if not isinstance(value, dict):
        problems.append(f"losses.{name} = {value!r}: expected the loss's parameters, such as `{name}: {{}}`")
        return None, {}
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        problems.append(f"losses.{name}: a name is made of letters, digits, '_' and '-' (it becomes a folder)")
        return None, {}
    kind = value.get("kind", name)
    if not isinstance(kind, str) or kind not in LOSSES:
        key = f"losses.{name}.kind" if "kind" in value else f"losses.{name}"
        problems.append(f"{key}: unknown loss {kind!r}{did_you_mean(str(kind), LOSSES)}; allowed: {', '.join(LOSSES)}")
        return None, {}
    return kind, {k: v for k, v in value.items() if k != "kind"}


def _loss_choice(name: str, kind: str, settings: dict[str, Any], problems: list[str]) -> LossChoice | None:
    definition = LOSSES[kind]
    try:
        params = definition.model_validate(settings)
    except ValidationError as err:
        problems += _describe_all(err.errors(), f"losses.{name}", definition)
        return None
    return LossChoice(name=name, kind=kind, params=params)


def _describe_all(errors: Sequence[ErrorDetails], prefix: str, model: Any) -> list[str]:
    """One line for each wrong value. A value that may be of several types fails once a type: those become one line."""
    lines: dict[str, str] = {}
    across_keys: list[str] = []
    for error in errors:
        key, message = _describe(error, prefix, model)
        if not key:
            across_keys += message.splitlines()
        else:
            lines[key] = f"{lines[key]}, or {message}" if key in lines else message
    return [f"{key}: {message}" for key, message in lines.items()] + across_keys


def _describe(error: ErrorDetails, prefix: str, model: Any) -> tuple[str, str]:
    """The key with the value that was given, and what is allowed."""
    loc = [str(part) for part in error["loc"] if not _TYPE_BRANCH.fullmatch(str(part))]
    key = ".".join(([prefix] if prefix else []) + loc)
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(model, loc[:-1])
        return key, f"unknown key{did_you_mean(loc[-1], allowed)}; allowed: {', '.join(allowed)}"
    if error["type"] == "missing":
        return key, "missing, and it has no default"
    if error["type"] == "model_type":
        return f"{key} = {error['input']!r}", f"expected keys below it; allowed: {', '.join(_allowed_keys(model, loc))}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] == "value_error" and message.startswith(f"{key}."):
        return "", message  # of several keys below this one: the message begins with the one to change
    return (key if error["type"] == "value_error" else f"{key} = {error['input']!r}"), message


def _allowed_keys(model: Any, loc: list[str]) -> list[str]:
    for part in loc:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        args = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        nested = next((a for a in args if hasattr(a, "model_fields")), None)
        model = nested if nested is not None else model
    return [f.alias or n for n, f in model.model_fields.items()]
