"""Pretrained weights come from files, folders, caches and the hub; what does not fit is refused by name."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from raregrade.config import TrainConfig
from raregrade.errors import ModelError
from raregrade.models.backbone import Classifier, build_model
from raregrade.models.folder import save_model

NAME = "resnet10t"
HUB_NAME = "timm/resnet10t.c3_in1k"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def network(name: str = NAME, classes: int = 17, **options: Any) -> torch.nn.Module:
    """A network with its classifier, of which no two tensors are alike, as trained weights are."""
    torch.manual_seed(5)
    model = timm.create_model(name, num_classes=classes, **options)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.01)
    return model.eval()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A safetensors file of ``NAME`` with a classifier of 17 classes."""
    path = tmp_path_factory.mktemp("weights") / "trained.safetensors"
    save_file(network().state_dict(), path)
    return path


def build(channels: int = 3, backbone: str = NAME, **train: Any) -> Classifier:
    return build_model(TrainConfig(backbone=backbone, **train), channels=channels, num_outputs=3)


def refused(**settings: Any) -> str:
    with pytest.raises(ModelError) as caught:
        build(**settings)
    return str(caught.value)


def holds_the_weights(model: Classifier, name: str = NAME) -> bool:
    expected = network(name).state_dict()
    own = model.backbone.state_dict()
    return bool(own) and all(torch.equal(tensor, expected[key]) for key, tensor in own.items())


def test_a_safetensors_file_fills_the_backbone_and_not_the_head(weights: Path) -> None:
    model = build(weights=str(weights))
    assert holds_the_weights(model)
    assert model.head.weight.shape == (3, 512)
    assert model.initial_weights is not None
    assert model.initial_weights["source"] == "trained.safetensors"
    assert len(model.initial_weights["sha256"]) == 64
    assert build().initial_weights is None


@pytest.mark.parametrize("form", ["zip", "legacy", "checkpoint", "data parallel", "without classifier"])
def test_every_form_of_a_torch_file_is_read(tmp_path: Path, form: str) -> None:
    state: dict[str, Any] = network().state_dict()
    if form == "without classifier":
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    if form == "data parallel":
        state = {f"module.{key}": value for key, value in state.items()}
    if form == "checkpoint":
        state = {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}
    path = tmp_path / "trained.pth"
    torch.save(state, path, _use_new_zipfile_serialization=form != "legacy")
    assert holds_the_weights(build(weights=str(path)))


def test_the_backbone_of_a_trained_model_starts_another(tmp_path: Path) -> None:
    first = build(weights="")
    save_model(tmp_path / "model", first, {})
    second = build(weights=str(tmp_path / "model" / "weights.safetensors"))
    for key, tensor in first.backbone.state_dict().items():
        assert torch.equal(second.backbone.state_dict()[key], tensor)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "densenet121", "mobilenetv3_large_100", "tf_efficientnetv2_s", "inception_v3", "vit_tiny_patch16_224"],
)
def test_a_grey_image_gives_what_its_copy_in_three_channels_does(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"img_size": 80} if name.startswith("vit") else {}
    save_file(network(name, **options).state_dict(), tmp_path / "trained.safetensors")
    train = TrainConfig(backbone=name, weights=str(tmp_path / "trained.safetensors"))
    grey, rgb = (build_model(train, channels=c, num_outputs=3, image_size=80).eval() for c in (1, 3))
    grey.set_normalisation([110.0], [45.0])
    rgb.set_normalisation([110.0] * 3, [45.0] * 3)
    images = torch.randint(0, 256, (2, 1, 80, 80), dtype=torch.uint8)
    with torch.no_grad():
        features = grey.features(images)
        torch.testing.assert_close(features, rgb.features(images.expand(2, 3, 80, 80)), rtol=1e-3, atol=1e-3)
    assert features.abs().max() > 0.01
    assert sum(p.numel() for p in grey.backbone.parameters()) < sum(p.numel() for p in rgb.backbone.parameters())


def test_another_architecture_is_refused_by_its_first_tensors(weights: Path) -> None:
    message = refused(backbone="resnet18", weights=str(weights))
    assert "trained.safetensors does not hold weights of 'resnet18'" in message
    assert "misses conv1.weight, layer1.1.conv1.weight, " in message
    assert "; it also has " in message
    assert len(message) < 700


def test_other_shapes_are_refused_by_name(tmp_path: Path) -> None:
    state = network().state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(8, 64, 3, 3)
    save_file(state, tmp_path / "trained.safetensors")
    message = refused(weights=str(tmp_path / "trained.safetensors"))
    assert "layer1.0.conv1.weight ([8, 64, 3, 3] instead of [64, 64, 3, 3])" in message


@pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy", "empty", "a web page", "a list", "npz"])
def test_a_damaged_file_is_refused(tmp_path: Path, weights: Path, kind: str) -> None:
    path = tmp_path / {"safetensors": "w.safetensors", "npz": "w.npz"}.get(kind, "w.pth")
    if kind == "safetensors":
        path.write_bytes(weights.read_bytes()[:100_000])
    elif kind in ("pth", "legacy"):
        torch.save(network().state_dict(), path, _use_new_zipfile_serialization=kind == "pth")
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "a list":
        torch.save([1, 2], path)
    else:
        path.write_bytes({"empty": b"", "a web page": b"<!DOCTYPE html>", "npz": b"PK\3\4torn"}[kind])
    name = "vit_tiny_patch16_224" if kind == "npz" else NAME
    message = refused(backbone=name, weights=str(path))
    assert str(path) in message
    assert "is damaged or no weights file" in message or (kind == "npz" and "does not hold weights" in message)


class Sneaky:
    """Unpickling one writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("form", ["network", "sneaky", "legacy sneaky", "plain pickle"])
def test_a_pickle_of_more_than_tensors_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path = tmp_path / "w.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"conv1.weight": Sneaky()}, protocol=2))
    else:
        what = network() if form == "network" else {"conv1.weight": Sneaky()}
        torch.save(what, path, _use_new_zipfile_serialization=form != "legacy sneaky")
    message = refused(weights=str(path))
    assert not Path("ran").exists()
    if form != "plain pickle":
        assert "loading it could run any program" in message


PLACES = [
    "resnet10t.c3_in1k.safetensors",
    "resnet10t.c3_in1k/model.safetensors",
    "model.safetensors",
    "models--timm--resnet10t.c3_in1k/snapshots/{}/model.safetensors",
    "hub/models--timm--resnet10t.c3_in1k/snapshots/{}/model.safetensors",
]


@pytest.mark.parametrize(
    ("name", "place"),
    # A file named without a tag need not be of the tag that was asked for.
    [(NAME, "resnet10t.safetensors"), *itertools.product([NAME, "resnet10t.c3_in1k"], PLACES)],
)
def test_a_folder_is_searched(tmp_path: Path, weights: Path, place: str, name: str) -> None:
    path = tmp_path / place.format(REVISION)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(weights, path)
    assert holds_the_weights(build(backbone=name, weights=str(tmp_path)))


def test_torch_s_own_cache_is_searched(tmp_path: Path) -> None:
    path = tmp_path / "hub" / "checkpoints" / Path(timm.get_pretrained_cfg(NAME).url).name
    path.parent.mkdir(parents=True)
    torch.save(network().state_dict(), path)
    assert holds_the_weights(build(weights=str(tmp_path)))


def test_of_several_revisions_in_a_cache_it_is_that_of_main(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "models--timm--resnet10t.c3_in1k"
    for revision in (REVISION, "f" * 40):
        (folder / "snapshots" / revision).mkdir(parents=True)
    (folder / "snapshots" / ("f" * 40) / "model.safetensors").write_bytes(b"old")
    shutil.copy(weights, folder / "snapshots" / REVISION / "model.safetensors")
    assert "holds no weights of 'resnet10t'" in refused(weights=str(tmp_path))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    assert holds_the_weights(build(weights=str(tmp_path)))


def test_a_folder_without_weights_says_what_to_bring(tmp_path: Path) -> None:
    message = refused(weights=str(tmp_path))
    assert f"{tmp_path} holds no weights of 'resnet10t'" in message
    assert "resnet10t.c3_in1k.safetensors" in message
    assert f"hf download {HUB_NAME} model.safetensors --local-dir weights/resnet10t.c3_in1k" in message
    assert "set train.weights: weights/resnet10t.c3_in1k" in message


def test_what_the_message_tells_to_bring_is_found(tmp_path: Path, weights: Path) -> None:
    """`hf download ... --local-dir FOLDER` leaves FOLDER/model.safetensors."""
    folder = tmp_path / "weights" / "resnet10t.c3_in1k"
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    shutil.copy(weights, folder / "model.safetensors")
    assert holds_the_weights(build(weights=str(folder)))


@pytest.mark.parametrize(("name", "said"), [("w.pth", "does not exist"), ("w.onnx", "no weights file; known: .safe")])
def test_a_path_without_weights_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "w.onnx").write_bytes(b"")
    assert said in refused(weights=str(tmp_path / name))


def test_weights_outside_the_hub_are_brought_by_their_address() -> None:
    message = refused(backbone="gcvit_xxtiny", pretrained=True)
    url = timm.get_pretrained_cfg("gcvit_xxtiny").url
    assert f"curl --location --create-dirs --output weights/{Path(url).name} {url}" in message


def test_a_model_without_pretrained_weights_says_so() -> None:
    assert "knows no pretrained weights of 'botnet50ts_256'" in refused(backbone="botnet50ts_256", pretrained=True)


def test_an_unknown_tag_lists_the_known_ones() -> None:
    assert "resnet10t.c3_in1k" in refused(backbone="resnet10t.imagenet", pretrained=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_archive_of_an_original_vision_transformer_is_read(tmp_path: Path, channels: int) -> None:
    model = network("vit_tiny_patch16_224", img_size=32)
    np.savez(tmp_path / "w.npz", **as_jax_archive(model))
    train = TrainConfig(backbone="vit_tiny_patch16_224", weights=str(tmp_path / "w.npz"))
    built = build_model(train, channels=channels, num_outputs=3, image_size=32).eval()
    built.set_normalisation([0.0] * channels, [1.0] * channels)
    images = torch.rand(2, channels, 32, 32)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(images.expand(2, 3, 32, 32)), pre_logits=True)
        torch.testing.assert_close(built.features(images), expected, rtol=1e-4, atol=1e-4)


def as_jax_archive(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights of a vision transformer as the archives of its JAX original hold them."""
    state = {key: value.detach().numpy() for key, value in model.state_dict().items()}
    width, heads = state["cls_token"].shape[-1], model.blocks[0].attn.num_heads
    archive = {
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for i in range(len(model.blocks)):
        block, ours = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        weight, bias = state[f"{ours}attn.qkv.weight"], state[f"{ours}attn.qkv.bias"]
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * width, (j + 1) * width)
            place = f"{block}MultiHeadDotProductAttention_1/{part}/"
            archive[f"{place}kernel"] = weight[rows].T.reshape(width, heads, -1)
            archive[f"{place}bias"] = bias[rows].reshape(heads, -1)
        out = f"{block}MultiHeadDotProductAttention_1/out/"
        archive[f"{out}kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(heads, -1, width)
        archive[f"{out}bias"] = state[f"{ours}attn.proj.bias"]
        for j in (0, 1):
            archive[f"{block}MlpBlock_3/Dense_{j}/kernel"] = state[f"{ours}mlp.fc{j + 1}.weight"].T
            archive[f"{block}MlpBlock_3/Dense_{j}/bias"] = state[f"{ours}mlp.fc{j + 1}.bias"]
        for theirs, own in ((0, 1), (2, 2)):
            archive[f"{block}LayerNorm_{theirs}/scale"] = state[f"{ours}norm{own}.weight"]
            archive[f"{block}LayerNorm_{theirs}/bias"] = state[f"{ours}norm{own}.bias"]
    return archive


# The hub. Its client reads the environment when it is imported, which may have been long ago: hence the constants.


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: one revision of one repository."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        content = self.files.get(
            self.path.removeprefix(f"/{HUB_NAME}/resolve/main/").removeprefix(f"/{HUB_NAME}/resolve/{REVISION}/")
        )
        self.send_response(200 if content is not None else 404)
        self.send_header("X-Repo-Commit", REVISION)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_header("ETag", f'"{len(content)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def point_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``point_to(port)``: the hub is this port of this machine, and its cache is empty."""

    def change(port: int) -> Path:
        endpoint = f"http://127.0.0.1:{port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        return tmp_path / "cache"

    return change


@pytest.fixture
def hub(weights: Path, point_to: Any) -> Iterator[type[_Hub]]:
    """A hub on this machine that holds the weights of ``NAME``."""
    handler = type("Hub", (_Hub,), {"files": {"model.safetensors": weights.read_bytes()}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_to(server.server_address[1])
    yield handler
    server.shutdown()
    server.server_close()


def test_weights_are_fetched_from_the_hub_once(hub: type[_Hub]) -> None:
    model = build(pretrained=True)
    assert holds_the_weights(model)
    assert model.initial_weights is not None
    assert model.initial_weights["source"] == HUB_NAME
    asked = len(hub.asked)
    assert asked > 0
    assert holds_the_weights(build(pretrained=True))
    assert len(hub.asked) == asked


def test_a_repository_with_a_torch_file_alone_will_do(hub: type[_Hub], tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.bin")
    hub.files = {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()}
    assert holds_the_weights(build(pretrained=True))


def test_the_cache_that_a_download_leaves_serves_as_folder(hub: type[_Hub], tmp_path: Path) -> None:
    build(pretrained=True)
    hub.files = {}
    moved = tmp_path / "brought"
    shutil.copytree(tmp_path / "cache", moved, symlinks=True)
    assert holds_the_weights(build(weights=str(moved)))


def test_a_file_that_settings_name_is_preferred_to_the_hub(hub: type[_Hub], weights: Path) -> None:
    assert holds_the_weights(build(pretrained=True, weights=str(weights)))
    assert hub.asked == []


@pytest.mark.parametrize("network_is", ["refused", "silent", "switched off"])
def test_without_a_network_the_advice_comes_within_seconds(
    point_to: Any, monkeypatch: pytest.MonkeyPatch, network_is: str
) -> None:
    timm.create_model(NAME, num_classes=0)  # what is imported by now is not waited for below
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if network_is == "silent":
            server.listen()  # and never accept: connections are taken by the system, and nothing is answered
        point_to(server.getsockname()[1])
        if network_is == "switched off":
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        start = time.monotonic()
        message = refused(pretrained=True)
        waited = time.monotonic() - start
    assert waited < 15
    assert message.startswith(f"train.pretrained: the weights of 'resnet10t' ({HUB_NAME}) are not in the hub's cache")
    assert f"hf download {HUB_NAME} model.safetensors --local-dir weights/resnet10t.c3_in1k" in message
    assert "set train.weights: weights/resnet10t.c3_in1k" in message
    assert "set train.pretrained: false" in message
    assert "\n" not in message


def test_loading_a_trained_model_asks_for_no_pretrained_weights(tmp_path: Path, weights: Path) -> None:
    from raregrade.models.folder import load_model

    train = TrainConfig(backbone=NAME, weights=str(weights), pretrained=True)
    model = build_model(train, channels=3, num_outputs=3, image_size=32)
    card = {
        "train": train.model_dump(mode="json") | {"weights": str(tmp_path / "gone.pth")},
        "head": {"kind": "linear", "scale": 1.0},
        "output": "softmax",
        "num_outputs": 3,
        "label_space": json.loads('{"task": "ordinal", "classes": ["a", "b", "c"], "hierarchy": []}'),
        "image_size": 32,
        "channels": 3,
    }
    save_model(tmp_path / "model", model, card)
    assert holds_the_weights(load_model(tmp_path / "model").network)
