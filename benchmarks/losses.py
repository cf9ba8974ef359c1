"""Forward + backward time of each loss as a ratio to torch's cross-entropy (or binary cross-entropy).

    python benchmarks/losses.py                          # 64x4, 512x4, 4096x21; CPU, and GPU where there is one
    python benchmarks/losses.py --compile --sizes 512x4
    python benchmarks/losses.py --check                  # exit code 1 where a bar is missed
    python benchmarks/losses.py --training-step          # beside a ResNet-18 step at 64 px

All losses of a size are timed in turn, in short blocks, round after round; the least time of a loss is what it costs
when nothing else disturbs it. Beside them run a plain per-sample Python loop of CDW-CE and dlordinal's CDW-CE.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from dlordinal.losses import CDWCELoss as DlordinalCDWCE
from torch import Tensor, nn
from torch.nn import functional

from raregrade.labels import LabelSpace, label_statistics
from raregrade.losses import LOSSES, create_loss
from raregrade.losses.base import Loss
from raregrade.losses.cdw_ce import CDWCE, CDWCELoss

LossFunction = Callable[[Tensor, Tensor], Tensor]

# (name of the row, size) -> ratio to the baseline that must not be exceeded, on the CPU, eager.
BARS: dict[tuple[str, str], float] = {
    ("cdw_ce", "512x4"): 3.0,
    ("focal", "512x4"): 2.5,
    ("ldam", "512x4"): 2.5,
    ("lmf", "512x4"): 4.5,
    ("cdw_ce", "4096x21"): 5.0,
    ("lmf, scale 5", "4096x21"): 5.0,
    ("hbce", "4096x21"): 3.0,
    ("lmf", "4096x21"): 5.0,
}
# The same against dlordinal's CDW-CE.
DLORDINAL_BARS: dict[str, float] = {"512x4": 1.0, "4096x21": 1.15}
BLOCK_SECONDS = 0.002
LOOP_BATCH = 512  # the Python loop takes some 20 s at 4096x21
PYTHON_LOOP, DLORDINAL = "cdw_ce, Python loop", "cdw_ce, dlordinal"


@dataclass(frozen=True)
class Case:
    """A loss with input of its own. ``baseline`` names the row that it is compared with."""

    name: str
    loss: LossFunction
    logits: Tensor
    target: Tensor
    baseline: str
    slow: bool = False

    def run(self) -> None:
        self.logits.grad = None
        self.loss(self.logits, self.target).backward()  # type: ignore[no-untyped-call]


def python_loop_cdw_ce(logits: Tensor, target: Tensor, power: float = 5.0) -> Tensor:
    """The formula as printed, one sample after the other."""
    total = logits.new_zeros(())
    for row, grade in zip(logits, target.tolist(), strict=True):
        probs = row.softmax(0)
        for i in range(len(row)):
            if i != grade:
                total = total - torch.log(1 - probs[i]) * abs(i - grade) ** power
    return total / len(logits)


def single_label_cases(batch: int, classes: int, device: torch.device, compiled: bool) -> list[Case]:
    space = LabelSpace("ordinal", tuple(f"grade {i}" for i in range(classes)))
    counts = [max(10, 1000 // 2**i) for i in range(classes)]
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(classes, (batch,), generator=generator)
    losses: dict[str, nn.Module | LossFunction] = {"cross_entropy": functional.cross_entropy}
    names = [n for n, p in LOSSES.items() if "ordinal" in p.tasks and n not in ("dlordinal", "two_stage")]
    for name in names:
        losses[name] = create_loss(name, label_space=space, class_counts=counts)
    losses["lmf, scale 5"] = create_loss("lmf", label_space=space, class_counts=counts, scale=5.0)
    # Scale 30 on a linear head drives softmax into subnormal numbers, slow on a CPU unless they are flushed to 0.
    losses["lmf, linear head"] = create_loss("lmf", label_space=space, class_counts=counts, head="linear")
    for form in ("dead_zone", "tighten"):
        losses[f"cdw_ce, {form}"] = CDWCELoss(CDWCE(margin=0.05, margin_form=form), num_classes=classes)
    losses[DLORDINAL] = DlordinalCDWCE(classes, alpha=5.0)
    if batch <= LOOP_BATCH:
        losses[PYTHON_LOOP] = python_loop_cdw_ce
    cases = []
    for name, loss in losses.items():
        width = getattr(loss, "num_outputs", classes)
        cosine_scale = loss.head.scale if isinstance(loss, Loss) and loss.head.kind == "cosine" else None
        noise = torch.randn(batch, width, generator=torch.Generator().manual_seed(1))
        logits = noise if cosine_scale is None else cosine_scale * torch.tanh(0.5 * noise)
        cases.append(
            Case(
                name,
                _prepared(loss, device, compiled and name != PYTHON_LOOP),
                logits.to(device).requires_grad_(),
                target.to(device),
                "cross_entropy",
                slow=name == PYTHON_LOOP,
            )
        )
    return cases


def multilabel_cases(batch: int, labels: int, device: torch.device, compiled: bool) -> list[Case]:
    edges = tuple((f"label {i}", f"label {j}") for i in range(labels) for j in (2 * i + 1, 2 * i + 2) if j < labels)
    space = LabelSpace("multilabel", tuple(f"label {i}" for i in range(labels)), edges)
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(batch, labels, generator=generator) < 0.3).float()
    counted = label_statistics(target.numpy(), space)
    losses: dict[str, nn.Module | LossFunction] = {"binary_cross_entropy": functional.binary_cross_entropy_with_logits}
    for name in (n for n, p in LOSSES.items() if "multilabel" in p.tasks):
        losses[name] = create_loss(name, label_space=space, statistics=counted)
    losses["hbce, soft"] = create_loss("hbce", label_space=space, statistics=counted, mode="soft")
    noise = torch.randn(batch, labels, generator=generator)
    return [
        Case(
            name,
            _prepared(loss, device, compiled),
            noise.clone().to(device).requires_grad_(),
            target.to(device),
            "binary_cross_entropy",
        )
        for name, loss in losses.items()
    ]


def _prepared(loss: nn.Module | LossFunction, device: torch.device, compiled: bool) -> LossFunction:
    if isinstance(loss, nn.Module):
        loss = loss.to(device)
    return torch.compile(loss) if compiled else loss


def seconds_of_block(case: Case, repeats: int, device: torch.device) -> float:
    """Least seconds of a run. On a GPU runs are queued, so there it is the mean of the block."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            case.run()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats
    least = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        case.run()
        least = min(least, time.perf_counter() - start)
    return least


def measure(cases: list[Case], rounds: int, device: torch.device) -> dict[str, float]:
    """Seconds a run of each case: the least of ``rounds`` rounds, in each of which every case has its turn."""
    repeats = {}
    for case in cases:
        for _ in range(0 if case.slow else 5):
            case.run()
        repeats[case.name] = 1 if case.slow else max(3, int(BLOCK_SECONDS / seconds_of_block(case, 1, device)))
    least = {case.name: float("inf") for case in cases}
    for turn in range(rounds):
        for case in cases:
            if not case.slow or turn == 0:
                least[case.name] = min(least[case.name], seconds_of_block(case, repeats[case.name], device))
    return least


def print_table(size: str, cases: list[Case], times: dict[str, float], bars: bool) -> list[str]:
    """Print one size as a Markdown table; returns the bars that were missed."""
    missed = []
    print("| loss | µs | ratio | to | bar |\n|---|---:|---:|---|---:|")
    for case in cases:
        value = times[case.name] / times[case.baseline]
        bar = BARS.get((case.name, size)) if bars else None
        if bar is not None and value > bar:
            missed.append(f"{size} {case.name}: {value:.2f} > {bar}")
        shown = "" if bar is None else f"≤ {bar:g}"
        print(f"| {case.name} | {times[case.name] * 1e6:,.0f} | {value:.2f} | {case.baseline} | {shown} |")
    if DLORDINAL in times:
        value = times["cdw_ce"] / times[DLORDINAL]
        bar = DLORDINAL_BARS.get(size) if bars else None
        if bar is not None and value > bar:
            missed.append(f"{size} cdw_ce to dlordinal's: {value:.2f} > {bar}")
        print(f"| cdw_ce | | {value:.2f} | {DLORDINAL} | {'' if bar is None else f'≤ {bar:g}'} |")
    print()
    return missed


def training_step_share(rounds: int, device: torch.device, batch: int = 64, classes: int = 4) -> list[str]:
    """Print each loss's time as a share of a ResNet-18 training step at 64 px; returns those of 1 % and more."""
    model = timm.create_model("resnet18", num_classes=classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.randn(batch, 3, 64, 64, device=device)
    cases = [c for c in single_label_cases(batch, classes, device, False) if not c.slow]
    cases += multilabel_cases(batch, 21, device, False)
    target = cases[0].target

    def step(_: Tensor, __: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(images), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return cases[0].logits.sum()

    whole = Case("ResNet-18 step", step, cases[0].logits, target, "")
    times = measure([whole, *cases], rounds, device)
    missed = []
    print(f"\n## Share of a ResNet-18 training step, {batch} images of 64 px, {device.type}\n")
    print("| loss | share |\n|---|---:|")
    for case in cases:
        share = times[case.name] / times[whole.name]
        print(f"| {case.name} | {100 * share:.2f} % |")
        if share >= 0.01 and not case.name.startswith("cdw_ce, "):
            missed.append(f"{case.name}: {100 * share:.2f} % of a training step")
    return missed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64x4,512x4,4096x21", help="batch x classes, separated by commas")
    parser.add_argument("--device", default="auto", help="auto: the CPU, and the GPU where there is one")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="one is disturbed least by other load")
    parser.add_argument("--flush-denormal", action="store_true", help="as training sets it")
    parser.add_argument("--training-step", action="store_true", help="also beside a ResNet-18 step")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a bar is missed (CPU, eager)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(options.flush_denormal)
    devices = (
        [options.device] if options.device != "auto" else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    )
    missed: list[str] = []
    for device in map(torch.device, devices):
        bars = device.type == "cpu" and not options.compile
        for size in options.sizes.split(","):
            batch, classes = (int(part) for part in size.split("x"))
            print(f"\n## {size}, {device.type}, {'compiled' if options.compile else 'eager'}\n")
            for build in (single_label_cases, multilabel_cases):
                cases = build(batch, classes, device, options.compile)
                missed += print_table(size, cases, measure(cases, options.rounds, device), bars)
        if options.training_step:
            missed += training_step_share(options.rounds, device)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
