"""PyTorch's side of a training case: `peer_torch.py FOLDER FORM`, with FORM f32, bf16 (autocast), or first (f32, and the last
layer of a BERT at its first position alone).

Eager mode, AdamW(fused=True), weight decay on matrices alone as ours has it, and the loss read back at every step, which
ours does to see that it is finite. Dropout and gradient clipping are off on both sides.
"""

import itertools
import json
import sys
from pathlib import Path

import models
import torch
from protocol import DEVICE, THREADS, serve
from torch.nn import functional as F


class Trainer:
    """One step of training, or of distillation where the case has a teacher."""

    def __init__(self, folder: Path, form: str):
        self.settings = json.loads((folder / "case.json").read_text())
        self.bf16 = form == "bf16"
        models.Bert.last_for_first = form == "first"
        self.model = models.load(folder / "model").to(DEVICE).train()
        distils = self.settings["work"] == "distil"
        self.teacher = models.load(folder / "teacher").to(DEVICE).eval() if distils else None
        batches = models.batches(folder, self.settings["rows"])
        self.batches = itertools.cycle([(inputs.to(DEVICE), labels.to(DEVICE)) for inputs, labels in batches])
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": self.settings["weight_decay"]},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings["learning_rate"], fused=True)

    def step(self) -> float:
        inputs, labels = next(self.batches)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.bf16):
            loss = self.objective(inputs, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def objective(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.model(inputs)
        hard = F.cross_entropy(logits, labels)
        if self.teacher is None:
            return hard
        with torch.no_grad():
            target = F.log_softmax(self.teacher(inputs) / self.settings["temperature"], -1)
        student = F.log_softmax(logits / self.settings["temperature"], -1)
        soft = F.kl_div(student, target, reduction="batchmean", log_target=True) * self.settings["temperature"] ** 2
        return self.settings["alpha"] * soft + (1 - self.settings["alpha"]) * hard


def main() -> None:
    torch.set_num_threads(THREADS)
    # f32 is f32 on a GPU, too; convolutions would be in TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    trainer = Trainer(Path(sys.argv[1]), sys.argv[2])
    losses = [trainer.step() for _ in range(3)]
    serve([sum(losses[:n]) / n for n in (1, 2, 3)], trainer.step)


if __name__ == "__main__":
    main()
