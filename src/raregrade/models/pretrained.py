"""Pretrained weights of timm's models: where they are found, and how they get into a backbone.

They come from a file, from a folder (weights files, or a cache of the Hugging Face hub or of torch), or from
the hub itself. No pickle is run. What the network around the backbone looks like is not known here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from raregrade.config import TrainConfig
from raregrade.errors import ModelError

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_SECONDS = 5.0  # to answer, before the hub counts as out of reach; its own client tries for half a minute
_AUXILIARY = "AuxLogits."
_OWN_BACKBONE = "backbone."


@dataclass(frozen=True)
class WeightsFile:
    """A file of pretrained weights. ``source`` names it in a model card, without the folders of one machine."""

    path: Path
    source: str

    def sha256(self) -> str:
        """SHA-256 of the file's content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def find_weights(train: TrainConfig) -> WeightsFile | None:
    """The weights that ``train`` asks for: ``weights`` (a file or a folder), else the hub's with ``pretrained``.

    Raises:
        ModelError: there is nothing at ``weights``, the folder holds no weights of this backbone, or the hub can't be
            reached; says how to bring the weights.
    """
    if train.weights:
        path = Path(train.weights).expanduser()
        if path.is_dir():
            return _in_folder(path, train.backbone)
        if not path.is_file():
            raise ModelError(f"train.weights: {path} does not exist. {how_to_bring(train.backbone)}")
        if path.suffix not in _SUFFIXES:
            raise ModelError(f"train.weights: {path} is no weights file; known: {', '.join(_SUFFIXES)}, or a folder")
        return WeightsFile(path, path.name)
    return _from_hub(train.backbone) if train.pretrained else None


def how_to_bring(backbone: str) -> str:
    """What to do on a machine without a network, as the end of an error message."""
    scratch = "To train from scratch, set train.pretrained: false and leave train.weights empty."
    config = _config(backbone)
    if config.hf_hub_id:
        repository = str(config.hf_hub_id)
        folder = f"weights/{repository.rsplit('/', 1)[-1]}"
        command = f"hf download {repository} {_HUB_FILES[0]} --local-dir {folder}"
    elif config.url:
        folder = f"weights/{Path(config.url).name}"
        command = f"curl --location --create-dirs --output {folder} {config.url}"
    else:
        return f"timm knows no pretrained weights of {backbone!r}. {scratch}"
    return (
        f"On a machine with a network, run `{command}`, bring {folder} here, and set train.weights: {folder} "
        f"(the cache folder of such a machine, its HF_HOME, will do as well). {scratch}"
    )


def create_pretrained(backbone: str, file: WeightsFile, *, channels: int, **options: Any) -> nn.Module:
    """The timm model ``backbone`` with the weights of ``file``, without its classifier.

    Every tensor must find its place, except for a classifier, which may be of any number of classes. A stem made for
    RGB is summed over its channels for grey images (``channels`` 1). Inception-v3 keeps the auxiliary head that the
    file holds.

    Raises:
        ModelError: the file is damaged, holds more than tensors, or belongs to another architecture; names the first
            tensors that don't fit.
    """
    if file.path.suffix == ".npz":
        # The format of the original JAX models, which the model itself knows how to read.
        overlay = {"file": str(file.path), "custom_load": True}
        model = _create(backbone, file, variant=backbone, channels=channels, num_classes=0, overlay=overlay, **options)
        return cast(nn.Module, model)
    state = read_weights(file.path)
    config = _config(backbone)
    variant = backbone
    if config.architecture == "inception_v3":
        options["aux_logits"] = any(key.startswith(_AUXILIARY) for key in state)
        # timm expects an auxiliary head of weights with the one tag, and none of the other; the network is the same.
        variant = "inception_v3.tv_in1k" if options["aux_logits"] else "inception_v3.gluon_in1k"
    problem: ModelError | None = None
    for classes in dict.fromkeys((_classes_of(state, config.classifier), int(config.num_classes))):
        # As many classes as the file has: only then does timm insist that every tensor fits.
        overlay = {"state_dict": dict(state), "num_classes": classes, "label_offset": 0}
        try:
            model = _create(
                backbone, file, variant=variant, channels=channels, num_classes=classes, overlay=overlay, **options
            )
        except ModelError as err:
            problem = problem or err
            continue
        model.pretrained_cfg = config.to_dict()  # without the weights just loaded
        model.default_cfg = model.pretrained_cfg
        model.reset_classifier(0)
        return cast(nn.Module, model)
    raise cast(ModelError, problem)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt or .bin file by name, also of one within a training checkpoint.

    Of a model folder's ``weights.safetensors`` it is the backbone's.

    Raises:
        ModelError: the file is damaged, holds more than tensors, or none.
    """
    from timm.models import load_state_dict  # noqa: PLC0415

    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as err:  # readers of several formats, each with exceptions of its own
        if re.search(r"Unsupported (global|class)", f"{err} {err.__cause__}"):
            raise ModelError(
                f"{path} holds more than tensors: loading it could run any program, so it is refused. Where you trust "
                'it, keep its tensors alone: python -c "import torch; '
                f"torch.save(torch.load('{path.name}', weights_only=False).state_dict(), 'weights.pth')\""
            ) from err
        cause = _first_line(err.__cause__ or err)
        raise ModelError(f"{path} is damaged or no weights file ({cause}). Fetch it again, whole.") from err
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"{path} holds no tensors. Give the weights of a model.")
    if {"mean", "std"} <= tensors.keys() and any(key.startswith(_OWN_BACKBONE) for key in tensors):
        tensors = {key.removeprefix(_OWN_BACKBONE): v for key, v in tensors.items() if key.startswith(_OWN_BACKBONE)}
    return tensors


def _config(backbone: str) -> Any:
    import timm  # noqa: PLC0415

    return timm.get_pretrained_cfg(backbone)


def _classes_of(state: dict[str, Tensor], classifiers: Any) -> int:
    """Width of the classifier in ``state``, 0 without one."""
    names = [classifiers] if isinstance(classifiers, str) else list(classifiers or ())
    return next((len(state[f"{name}.weight"]) for name in names if f"{name}.weight" in state), 0)


def _create(
    backbone: str,
    file: WeightsFile,
    *,
    variant: str,
    channels: int,
    num_classes: int,
    overlay: dict[str, Any],
    **options: Any,
) -> Any:
    """timm's model ``variant``, which the user knows as ``backbone``."""
    import timm  # noqa: PLC0415

    try:
        return timm.create_model(
            variant,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=num_classes,
            in_chans=channels,
            **options,
        )
    except Exception as err:  # timm raises whatever stands in the way of its loaders
        raise ModelError(
            f"train.weights: {file.path} does not hold weights of {backbone!r}: {_mismatch(err)}. "
            "Set train.backbone to the model that the weights are of, or give other weights."
        ) from err


def _mismatch(error: Exception) -> str:
    """The first tensors that don't fit, of torch's message, which names all."""
    text = str(error)
    parts = []
    for what, pattern in (("misses", r"Missing key\(s\)[^:]*: (.*)"), ("also has", r"Unexpected key\(s\)[^:]*: (.*)")):
        found = re.search(pattern, text)
        if found:
            names = re.findall(r'"([^"]+)"', found.group(1))
            parts.append(f"it {what} {_first_of(names)}")
    sizes = re.findall(r"size mismatch for ([^:\s]+):.*?torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)", text)
    if sizes:
        parts.append("other shapes of " + _first_of([f"{key} ({a} instead of {b})" for key, a, b in sizes]))
    return "; ".join(parts) if parts else _first_line(error)


def _first_of(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


def _in_folder(folder: Path, backbone: str) -> WeightsFile:
    """The weights of ``backbone`` in a folder of weights files, or in a cache of the hub or of torch."""
    config = _config(backbone)
    names = list(dict.fromkeys([backbone, *([f"{config.architecture}.{config.tag}"] if config.tag else [])]))
    candidates = [folder / f"{name}{suffix}" for name in names for suffix in _SUFFIXES]
    candidates += [folder / name / file for name in names for file in _HUB_FILES]
    candidates += [folder / file for file in _HUB_FILES]
    if config.url:
        file = Path(config.url).name
        candidates += [folder / place / file for place in (".", "checkpoints", "hub/checkpoints")]
    for path in candidates:
        if path.is_file():
            return WeightsFile(path, path.name)
    if config.hf_hub_id:
        for root in (folder, folder / "hub"):
            cached = _in_hub_cache(root, str(config.hf_hub_id))
            if cached is not None:
                return WeightsFile(cached, str(config.hf_hub_id))
    raise ModelError(
        f"train.weights: the folder {folder} holds no weights of {backbone!r}: neither "
        f"{' nor '.join(f'{name}.safetensors' for name in names)} (or .pth, .pt, .bin, .npz), nor {_HUB_FILES[0]}, "
        f"nor the hub's cache of them. {how_to_bring(backbone)}"
    )


def _in_hub_cache(root: Path, repository: str) -> Path | None:
    """The weights of ``repository`` in the hub's cache ``root``: of its main revision, or of the only one there."""
    name, _, revision = repository.partition("@")
    folder = root / f"models--{name.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    chosen = reference.read_text(encoding="utf-8").strip() if reference.is_file() else "*"
    for file in _HUB_FILES:
        found = sorted(folder.glob(f"snapshots/{chosen}/{file}"))
        if len(found) == 1:
            return found[0]
    return None


def _from_hub(backbone: str) -> WeightsFile:
    """The weights from the hub's cache, else from the hub."""
    import huggingface_hub as hub  # noqa: PLC0415
    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    config = _config(backbone)
    if not config.hf_hub_id:
        raise ModelError(f"train.pretrained: the hub has no weights of {backbone!r}. {how_to_bring(backbone)}")
    name, _, revision = str(config.hf_hub_id).partition("@")
    place: dict[str, Any] = {"repo_id": name, "revision": revision or None}
    for file in _HUB_FILES:
        cached = hub.try_to_load_from_cache(filename=file, **place)
        if isinstance(cached, str):
            return WeightsFile(Path(cached), name)
    try:
        for file in _HUB_FILES:
            try:
                # Unlike the download, this asks once: a machine without a network knows within seconds.
                hub.get_hf_file_metadata(hub.hf_hub_url(filename=file, **place), timeout=_HUB_SECONDS)
            except EntryNotFoundError:
                continue
            return WeightsFile(Path(hub.hf_hub_download(filename=file, **place)), name)
        cause = f"{name} has no {' nor '.join(_HUB_FILES)}"
    except Exception as err:  # of the network, of the hub's client, of the disk
        cause = _first_line(err)
    raise ModelError(
        f"train.pretrained: the weights of {backbone!r} ({name}) are not in the hub's cache and could not be fetched "
        f"({cause}). {how_to_bring(backbone)}"
    )
