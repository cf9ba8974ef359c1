"""How near training comes to what the hardware can do, and how far ahead of usual loops it is.

    python benchmarks/training.py                 # ResNet-18: 64 px on a CPU, 224 px on a GPU where there is one
    python benchmarks/training.py --check         # exit code 1 where a bar is missed
    python benchmarks/training.py --only start    # parts: speed, start, memory

Images per second of raregrade's training loop, as ratios to

  ceiling   the same model, batch size, precision and optimiser, fed again and again by one tensor on the device;
  plain     a plain PyTorch loop: DataLoader over image files, torchvision transforms, float32, as people write it;
  timm      timm's data loader over the same files, with raregrade's model, precision and optimiser.

The four take turns, round after round, in one process; a ratio is the median over rounds of ratios within a round.
Validation is left out of all of them. Images are drawn (the phantom), so their content is no evidence of anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from raregrade.config import DataConfig, LossChoice, PhantomConfig, TrainConfig, TrainSection
from raregrade.data.manifest import PreparedDataset
from raregrade.data.phantom import PHANTOM_LABELS, draw_phantom
from raregrade.data.prepare import prepare_dataset
from raregrade.losses import LOSSES
from raregrade.training.checkpoint import Checkpoint
from raregrade.training.hardware import autocast, choose_device, choose_precision
from raregrade.training.loop import fit
from raregrade.training.reporter import Reporter

WARM_UP = 5
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
# Ratio of raregrade to the other, at least; by device.
BARS = {
    "cpu": {"ceiling": 0.95, "plain": 1.5},
    "cuda": {"ceiling": 0.90, "plain": 3.0},
}
START_BAR = 1.5
FIRST_STEP = """
import os, sys, time
from raregrade.training.update import Updater
update = Updater.update
def first(self, *arguments):
    loss = update(self, *arguments)
    float(loss)
    print("first step", flush=True)
    os._exit(0)
Updater.update = first
from raregrade.cli.main import run
run(sys.argv[1:])
"""
PEAK = """
import sys
from raregrade.cli.main import run
try:
    run(sys.argv[1:])
finally:
    print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Setting:
    """The data and what is alike for all contestants."""

    def __init__(self, folder: Path, device: torch.device, *, size: int, batch: int, steps: int, workers: int) -> None:
        self.folder = folder
        self.device = device
        self.size = size
        self.batch = batch
        self.steps = steps
        self.workers = workers
        self.classes = list(PHANTOM_LABELS["ordinal"].classes)
        self.config = TrainConfig(epochs=1, batch_size=batch, threads=os.cpu_count() or 1, warmup_epochs=0.0)
        self.precision = choose_precision(self.config, device)
        self.dataset = self._prepare()
        self.files = self._write_files()

    def _prepare(self) -> PreparedDataset:
        images = self.batch * self.steps
        # About 2.5 images per patient, 70 % of them for training; what is too much is left out by the loop.
        patients = int(images / 0.7 / 2.5 * 1.15) + 20
        draw_phantom(PhantomConfig(patients=patients, image_size=min(512, self.size * 5 // 4)), 1, self.folder / "raw")
        raw = str(self.folder / "raw")
        data = DataConfig(source="phantom", path=raw, task="ordinal", classes=self.classes, image_size=self.size)
        return prepare_dataset(data, 1, self.folder / "prepared")

    def _write_files(self) -> Path:
        """The training images as people keep them: a folder per class, files somewhat larger than the input."""
        root = self.folder / "files"
        rows = self.dataset.rows("train")
        table = self.dataset.manifest.iloc[rows]
        for path, label in zip(table["source_path"], table["label"], strict=True):
            target = root / str(label) / Path(path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(self.folder / "raw" / path) as image:
                image.convert("RGB").save(target)
        return root


class Clock(Reporter):
    """Images a second between the end of the warm-up and the last step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.images = 0
        self.rate = float("nan")

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float | None) -> None:  # noqa: ARG002
        if step == WARM_UP:
            _wait(self.device)
            self.images, self.since = 0, time.perf_counter()
            return
        self.images += images
        if step == steps:
            _wait(self.device)
            self.rate = self.images / (time.perf_counter() - self.since)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["speed", "start", "memory"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="a round; by default 30 on a CPU, 60 on a GPU")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    device = choose_device()
    gpu = device.type == "cuda"
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        setting = Setting(
            Path(name),
            device,
            size=224 if gpu else 64,
            batch=256 if gpu else 32,
            steps=options.steps or (60 if gpu else 30),
            workers=16 if gpu else os.cpu_count() or 1,
        )
        print(f"{_device_name(device)}: ResNet-18, {setting.size} px, batch {setting.batch}, {setting.precision}\n")
        missed: list[str] = []
        if options.only in (None, "speed"):
            missed += speed(setting, options.rounds)
        if options.only in (None, "start"):
            missed += start(setting, options.rounds)
        if options.only in (None, "memory"):
            memory(setting)
    for line in missed:
        print(f"missed: {line}")
    return int(options.check and bool(missed))


def speed(setting: Setting, rounds: int) -> list[str]:
    """Print the table of rates; returns the bars that were missed."""
    contestants: dict[str, Callable[[], float]] = {
        "raregrade": lambda: raregrade_rate(setting),
        "ceiling": lambda: loop_rate(setting, fixed_batch(setting), usual=False),
        "plain": lambda: loop_rate(setting, plain_batches(setting), usual=True),
        "timm": lambda: loop_rate(setting, timm_batches(setting), usual=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            rates[name].append(run())
    print("| to | raregrade's images/s as a ratio | rounds | bar |\n|---|---|---|---|")
    missed = []
    for name in ("ceiling", "plain", "timm"):
        ratios = [ours / other for ours, other in zip(rates["raregrade"], rates[name], strict=True)]
        ratio, bar = statistics.median(ratios), BARS[setting.device.type].get(name)
        print(f"| {name} | {ratio:.2f} | {min(ratios):.2f}–{max(ratios):.2f} | {f'≥ {bar}' if bar else ''} |")
        if bar and ratio < bar:
            missed.append(f"{name} {ratio:.3f} < {bar}")
    print()
    return missed


def raregrade_rate(setting: Setting) -> float:
    clock = Clock(setting.device)
    loss = LossChoice(name="ce", kind="ce", params=LOSSES["ce"]())
    fit(
        TrainSection(train=setting.config, loss=loss),
        setting.dataset,
        seed=1,
        metric="qwk",
        reporter=clock,
        checkpoint=Checkpoint(None),
    )
    return clock.rate


def loop_rate(setting: Setting, batches: Iterator[tuple[Tensor, Tensor]], *, usual: bool) -> float:
    """Of a training loop over ``batches``; ``usual``: float32, contiguous memory, an optimiser that isn't fused."""
    device = setting.device
    model = timm.create_model("resnet18", num_classes=len(setting.classes)).to(device).train()
    if not usual:
        model = model.to(memory_format=torch.channels_last)
    normalise = nn.Identity() if usual else _Normalise().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=None if usual else True)
    precision = torch.float32 if usual else setting.precision
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, not usual
    seen = 0
    since = time.perf_counter()
    for step, batch in enumerate(batches, start=1):
        images, target = (part.to(device, non_blocking=True) for part in batch)
        with autocast(device, precision):
            logits = model(normalise(images))
        loss = functional.cross_entropy(logits.float(), target)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if step == WARM_UP:
            _wait(device)
            seen, since = 0, time.perf_counter()
        elif step > WARM_UP:
            seen += len(target)
        if step == setting.steps:
            break
    _wait(device)
    torch.backends.cudnn.benchmark = benchmark
    return seen / (time.perf_counter() - since)


class _Normalise(nn.Module):
    """What raregrade's model does to its pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return ((images.float() - 127.5) / 64).contiguous(memory_format=torch.channels_last)


def fixed_batch(setting: Setting) -> Iterator[tuple[Tensor, Tensor]]:
    rows = setting.dataset.rows("train")[: setting.batch]
    images = torch.tensor(setting.dataset.images(rows)).permute(0, 3, 1, 2).float().to(setting.device)
    target = torch.tensor(setting.dataset.targets(rows)).to(setting.device)
    while True:
        yield images, target


def plain_batches(setting: Setting) -> Iterator[tuple[Tensor, Tensor]]:
    augment = setting.config.augment
    transform = transforms.Compose(
        [
            transforms.Resize((setting.size, setting.size)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(
                augment.rotate_degrees,
                translate=(augment.translate, augment.translate),
                scale=(1 - augment.scale, 1 + augment.scale),
                interpolation=transforms.InterpolationMode.BILINEAR,
            ),
            transforms.ColorJitter(brightness=augment.brightness, contrast=augment.contrast),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(setting.files), transform),
        batch_size=setting.batch,
        shuffle=True,
        drop_last=True,
        num_workers=setting.workers,
        pin_memory=setting.device.type == "cuda",
    )
    yield from loader


def timm_batches(setting: Setting) -> Iterator[tuple[Tensor, Tensor]]:
    loader: Any = create_loader(
        create_dataset("", root=str(setting.files)),
        input_size=(3, setting.size, setting.size),
        batch_size=setting.batch,
        is_training=True,
        no_aug=False,
        hflip=0.5,
        color_jitter=setting.config.augment.brightness,
        auto_augment=None,
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1 / 255, 1 / 255, 1 / 255),  # pixel values 0–255, which raregrade's model normalises itself
        num_workers=setting.workers,
        device=setting.device,
        use_prefetcher=setting.device.type == "cuda",
        pin_memory=setting.device.type == "cuda",
        persistent_workers=False,
    )
    yield from loader


def start(setting: Setting, rounds: int) -> list[str]:
    """Seconds from process start to the end of the first step, beside ``import torch, timm``."""
    command = [sys.executable, "-c", FIRST_STEP, *_train_command(setting, epochs=1)]
    imports = [sys.executable, "-c", "import torch, timm"]
    ratios = []
    for _ in range(rounds + 1):  # the first fills the disk cache
        first_step = _seconds(command, setting.folder, says="first step")
        ratios.append(first_step / _seconds(imports, setting.folder))
    ratio = statistics.median(ratios[1:])
    print("| process start to first step, to `import torch, timm` | rounds | bar |\n|---|---|---|")
    print(f"| {ratio:.2f} | {min(ratios[1:]):.2f}–{max(ratios[1:]):.2f} | ≤ {START_BAR} |\n")
    return [f"start {ratio:.3f} > {START_BAR}"] if ratio > START_BAR else []


def memory(setting: Setting) -> None:
    """Peak memory of ``raregrade train``, beside that of ``import torch, timm``."""
    command = [sys.executable, "-c", PEAK, *_train_command(setting, epochs=1)]
    output = subprocess.run(command, cwd=setting.folder, check=True, capture_output=True, text=True).stdout
    peak = int(output.rsplit("peak ", 1)[1]) / 1024
    imports = "import torch, timm\nprint([l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
    base = (
        int(subprocess.run([sys.executable, "-c", imports], check=True, capture_output=True, text=True).stdout) / 1024
    )
    print("| peak memory | MiB | to `import torch, timm` |\n|---|---|---|")
    print(f"| process | {peak:.0f} | {peak / base:.1f} |")
    if setting.device.type == "cuda":
        print(f"| GPU, all contestants | {torch.cuda.max_memory_allocated() / 2**20:.0f} | |")
    print()


def _train_command(setting: Setting, *, epochs: int) -> list[str]:
    params = {
        "data": {
            "source": "phantom",
            "path": "raw",
            "task": "ordinal",
            "classes": setting.classes,
            "image_size": setting.size,
        },
        "train": {"epochs": epochs, "batch_size": setting.batch, "threads": setting.config.threads},
        "losses": {"ce": {}},
        "compare": {"losses": ["ce"], "seeds": [1], "baseline": "ce"},
        "tracking": {"uri": "none"},
    }
    (setting.folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    return ["train", "--data", "prepared", "--loss", "ce", "--out", "model", "--resume", "never"]


def _seconds(command: list[str], folder: Path, says: str = "") -> float:
    since = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - since
    if says not in done.stdout:
        raise RuntimeError(f"the command did not come to say {says!r}: {done.stderr}")
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{model}, {os.cpu_count()} cores"


if __name__ == "__main__":
    raise SystemExit(main())
