"""The image that every component runs in. Resolved once, when the components are imported."""

import os

from raregrade import __version__

DEFAULT_IMAGE = f"localhost/raregrade:{__version__}"
IMAGE = os.environ.get("RAREGRADE_IMAGE") or DEFAULT_IMAGE
