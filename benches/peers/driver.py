"""Runs the rows of `rows.py` and prints a line for each. Called by `run`, which builds what it needs.

Every side of a case is a process of its own that lives for the whole case; they run in turn, the order turned round after
every round, while the others wait. Before anything is timed, the sides must agree on logits or losses. Figures are
medians. Beside their ratio stand those of the least times and of processor time, which suffer less from a busy machine;
processor time means something with one thread alone, for waiting threads of the peers spend it as well.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from rows import ROWS, Row

HERE = Path(__file__).parent
# Gradient checkpointing changes no bit.
AGREEMENT = {"f32": 1e-4, "bf16": 2e-2, "int8": 5e-2, "dynamic": 5e-2, "static": 5e-2, "checkpointed": 0.0}
# The peer without what nobody reads.
AGREEMENT |= {"first": AGREEMENT["f32"], "firstdynamic": AGREEMENT["dynamic"]}


class Failed(Exception):
    """A program that did not do what it was asked for."""


def environment(options) -> dict[str, str]:
    """That of every program: device, threads, and candle's own pool as `orchestrate build` sets it for its workers."""
    threads = {"RAYON_NUM_THREADS": str(options.threads), "PEER_THREADS": str(options.threads)}
    return os.environ | {"CANDLE_NUM_THREADS": "1", "PEER_DEVICE": options.device} | threads


def output(command: list, options) -> str:
    """What a program prints, once it has ended well."""
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(options))
    if ended.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} ended with {ended.returncode}:\n{ended.stderr.rstrip()}")
    return ended.stdout


class Side:
    """A process that runs one case in one way."""

    def __init__(self, program: Path, folder: Path, case: str, name: str, options):
        kind, precision = name.split("-")
        self.name, self.precision, self.times = name, precision, []
        self.runs, self.processor = 0, 0.0
        # Whatever only some batches touch has been touched when time is taken.
        self.before = json.loads((folder / "case.json").read_text())["batches"]
        command = {
            "ours": [program, "serve", folder, case, precision],
            "torch": [sys.executable, HERE / "peer_torch.py", folder, precision],
            "onnx": [sys.executable, HERE / "peer_onnx.py", folder, precision],
        }[kind]
        pipe = subprocess.PIPE
        # What it says on standard error is shown as it is.
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(options))
        self.check = self.answer()

    def answer(self) -> list[float]:
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, request: str) -> list[float]:
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended: reading says how.
        return self.answer()

    def processor_time(self) -> float:
        """Of the process so far, in ms."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")

    def run(self) -> None:
        """One turn."""
        before = self.processor_time()
        self.times += self.ask(f"run {self.count} {self.before}")
        self.processor += self.processor_time() - before
        self.runs += self.count + self.before

    def close(self) -> None:
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


def disagreement(sides: list[Side]) -> str | None:
    """The first side whose numbers differ from those of the first f32 one, or of the first one where none was chosen."""
    reference = next((side for side in sides if side.precision == "f32"), sides[0]).check
    for side in sides:
        apart = max(abs(a - b) for a, b in zip(side.check, reference, strict=True))
        print(f"  {side.name} differs by {apart:.1e}", file=sys.stderr)
        if not apart <= AGREEMENT[side.precision]:
            return f"{side.name} computes something else: {side.check[:4]} and {reference[:4]}"
    return None


def measure(sides: list[Side], rounds: int, seconds: float) -> None:
    """Fills in the times; each round gives every side about `seconds`."""
    for side in sides:
        first = side.ask("run 1 1")[0]
        side.count = max(2, min(200, round(seconds * 1e3 / first)))
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):
            side.run()


class Comparison:
    """The machine, the options, and what failed so far."""

    def __init__(self, program: Path, work: Path, options):
        self.program, self.work, self.options, self.failed = program, work, options, False
        self.best = [0.0, 0.0]

    def rates(self) -> list[float]:
        """The best rates in f32 seen so far, in GFLOP/s: of multiply-adds in registers, and of our matrix product."""
        seen = json.loads(output([self.program, "rates"], self.options))
        self.best = [max(pair) for pair in zip(self.best, seen, strict=True)]
        return self.best

    def judge(self, good: bool) -> str:
        self.failed |= not good
        return "met" if good else "MISSED"

    def prepare(self, case: str) -> None:
        folder = self.work / case
        folder.mkdir(parents=True, exist_ok=True)
        output([self.program, "prepare", folder, case], self.options)
        if case.startswith("infer"):
            output([sys.executable, "-W", "ignore", HERE / "export_onnx.py", folder], self.options)

    def case(self, case: str, rows: list[Row]) -> None:
        """Runs the case and prints its rows; what fails is said instead."""
        sides: dict[str, Side] = {}
        try:
            self.prepare(case)
            for name in dict.fromkeys(side for row in rows for side in (row.ours, row.theirs)):
                sides[name] = Side(self.program, self.work / case, case, name, self.options)
            problem = disagreement(list(sides.values()))
            if problem:
                raise Failed(problem)
            measure(list(sides.values()), self.options.rounds, self.options.seconds)
            rates = self.rates() if case.startswith("train-bert") and self.options.device == "cpu" else None
            for row in rows:
                self.line(row, sides[row.ours], sides[row.theirs], rates)
        except Failed as error:
            self.failed = True
            print(f"{case}: FAILED: {error}", flush=True)
        finally:
            for side in sides.values():
                side.close()

    def line(self, row: Row, ours: Side, theirs: Side, rates: list[float] | None) -> None:
        medians = [statistics.median(side.times) for side in (ours, theirs)]
        least = [min(side.times) for side in (ours, theirs)]
        memory = [side.ask("peak")[0] for side in (ours, theirs)]
        processor = [side.processor / side.runs for side in (ours, theirs)]
        ratio = medians[1] / medians[0]
        judged = row.target is not None and self.options.device == "cpu"
        target = f"{row.target:4.2f} {self.judge(ratio >= row.target)}" if judged else "      -"
        # Operations in bf16 have another peak.
        share = f"  {self.share(row.case, medians[0], rates)}" if rates and ours.precision == "f32" else ""
        # Of the process, which says nothing of a GPU's.
        held = f"{memory[0]:6.0f} {memory[1]:6.0f} MiB" if self.options.device == "cpu" else "-"
        ratios = f"{ratio:6.2f} {least[1] / least[0]:6.2f} {processor[1] / max(processor[0], 1e-9):6.2f}"
        print(
            f"{row.title:<46} {medians[0]:9.3f} {medians[1]:9.3f} {ratios}  {target:<12}"
            f"{held}{share}",
            flush=True,
        )
        if row.memory is not None and judged:
            part = memory[0] / memory[1]
            verdict = self.judge(part <= row.memory)
            title = "  its peak memory, ours over theirs"
            print(f"{title:<46} {memory[0]:9.0f} {memory[1]:9.0f} {part:6.2f}                {row.memory:4.2f} {verdict}")

    def share(self, case: str, milliseconds: float, rates: list[float]) -> str:
        settings = json.loads((self.work / case / "case.json").read_text())
        # Forward, and the gradients of inputs and of weights: three products of two operations a multiply-accumulate.
        done = 6 * settings["macs"] * settings["rows"] / milliseconds / 1e6
        peak, product = rates
        return f"{done:.0f} of {peak:.0f} GFLOP/s ({done / peak:.0%}; our product alone {product:.0f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="benches/peers/run")
    parser.add_argument("--rows", metavar="PATTERN", help="only rows whose title or case matches this expression")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every side (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time of a side's turn, about (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every side (%(default)s)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="of training; targets are for the CPU (%(default)s)"
    )
    parser.add_argument("--program", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    wanted = [r for r in ROWS if options.rows is None or re.search(options.rows, f"{r.title} {r.case}")]
    if options.device != "cpu":
        wanted = [row for row in wanted if not row.case.startswith("infer")]
    comparison = Comparison(options.program, options.work, options)
    ratios = f"{'ratio':>6} {'least':>6} {'cpu':>6}"
    print(f"{'work, peer':<46} {'ours ms':>9} {'peer ms':>9} {ratios}  {'target':<12}peak memory", flush=True)
    for case in dict.fromkeys(row.case for row in wanted):
        comparison.case(case, [row for row in wanted if row.case == case])
    return 1 if comparison.failed or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
