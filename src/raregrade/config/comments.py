"""A parameters file with other values and its own comments."""

from __future__ import annotations

import io
from typing import Any


def with_values_of(text: str, values: dict[str, Any]) -> str:
    """The parameters file ``text`` with ``values``, which hold at least its keys. Comments and order stay.

    The caller checks that the result reads back: ruamel.yaml reads a few odd scalars otherwise than ``load_params``.
    """
    from ruamel.yaml import YAML  # noqa: PLC0415 - for this command alone

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    _replace(document, values)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _replace(node: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        old = node.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and old.keys() <= value.keys():
            _replace(old, value)
        elif key not in node or old != value or isinstance(old, bool) != isinstance(value, bool):
            node[key] = value
