"""What a busy neighbour costs training, with OpenMP threads that spin or sleep while they wait.

    python benchmarks/threads.py

Times a ResNet-18 training step (64 px, batch 32, two threads) alone and beside one process that keeps a core busy.
Prints ratios to the median of the step alone with OpenMP's default.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

STEPS, WARM_UP, LIMIT_S = 40, 5, 60.0
SETTINGS = {"default (spin)": {}, "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}}


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(_time_steps()))
        return 0
    rows = {}
    for busy in (False, True):
        for name, setting in SETTINGS.items():
            rows[name, busy] = _measure(setting, busy)
    unit = statistics.median(rows["default (spin)", False])
    print("| threads | neighbour | median | mean |\n|---|---|---|---|")
    for (name, busy), times in rows.items():
        ratios = statistics.median(times) / unit, statistics.mean(times) / unit
        print(f"| {name} | {'busy' if busy else 'none'} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    return 0


def _measure(setting: dict[str, str], busy: bool) -> list[float]:
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))} | setting
        done = subprocess.run(
            [sys.executable, __file__, "child"], env=environment, check=True, capture_output=True, text=True
        )
        return list(json.loads(done.stdout))
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.wait()


def _time_steps() -> list[float]:
    import timm  # noqa: PLC0415 - the parent process needs neither
    import torch  # noqa: PLC0415

    torch.set_num_threads(2)
    model = timm.create_model("resnet18", num_classes=4).to(memory_format=torch.channels_last)
    images = torch.randn(32, 3, 64, 64).to(memory_format=torch.channels_last)
    target = torch.randint(0, 4, (32,))
    times: list[float] = []
    while len(times) < STEPS + WARM_UP and sum(times) < LIMIT_S:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), target)
        torch.autograd.backward(loss)
        times.append(time.perf_counter() - start)
    return times[WARM_UP:]


if __name__ == "__main__":
    sys.exit(main())
