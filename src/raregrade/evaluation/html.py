"""HTML pages from the packaged templates: one file each, figures and style inside, no script, nothing fetched.

Every value is escaped (class names, image names and titles come from users); formatting of numbers lives here,
their computation does not.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raregrade import __version__
from raregrade.evaluation.figures import DPI
from raregrade.evaluation.naming import metric_name, signed

MISSING = "–"


def render(template: str, context: Mapping[str, Any]) -> str:
    """The page of ``templates/<template>`` with ``context``. A value that a template lacks is an error, not a blank."""
    environment = Environment(
        loader=PackageLoader("raregrade.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": _number,
        "bounds": _bounds,
        "signed": _signed,
        "p_value": _p_value,
        "metric": metric_name,
    }
    return environment.get_template(template).render(**context, version=__version__)


def figure(path: Path, text: str) -> Markup:
    """The PNG at ``path`` as an image element that carries its bytes; ``text`` describes it to those who cannot see."""
    content = path.read_bytes()
    # Pixels are the 8 bytes after PNG's first chunk header; shown at the size it was drawn for, sharp on dense screens.
    width, height = (round(pixels * 96 / DPI) for pixels in struct.unpack(">II", content[16:24]))
    data = b64encode(content).decode("ascii")
    element = Markup('<img src="data:image/png;base64,{}" width="{}" height="{}" alt="{}">')
    return element.format(data, width, height, text)


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _bounds(value: Sequence[float | None] | None) -> str:
    if value is None or value[0] is None or value[1] is None:
        return ""
    return f"[{value[0]:.3f}, {value[1]:.3f}]".replace("-", "−")


def _signed(value: float | None) -> str:
    return MISSING if value is None else signed(value).replace("-", "−")


def _p_value(value: float | None) -> str:
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
