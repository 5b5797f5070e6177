"""What a peer's process says to the driver: the same lines as our `peer_bench serve`.

First, unasked, the numbers that both sides must agree on; to `run N M` the milliseconds of N runs
after M that do not count; to `peak` the process's peak memory in MiB. Every answer is a line of JSON.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path


THREADS = int(os.environ.get("PEER_THREADS", os.cpu_count()))
DEVICE = os.environ.get("PEER_DEVICE", "cpu")


def answer(numbers: list[float]) -> None:
    print(json.dumps(numbers), flush=True)


def peak_mebibytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+)", status).group(1)) / 1024


def serve(check: list[float], once: Callable[[], object]) -> None:
    """Answers until standard input ends."""
    answer(check)
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "peak":
            answer([peak_mebibytes()])
            continue
        count, before = map(int, rest)
        for _ in range(before):
            once()
        times = []
        for _ in range(count):
            started = time.perf_counter()
            once()
            times.append((time.perf_counter() - started) * 1e3)
        answer(times)
