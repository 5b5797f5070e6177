"""The rows of the comparison: which two sides of which case, and how many times faster the first must be.

A side is `PROGRAM-PRECISION`. A side that cannot be prepared or run fails the comparison.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The time of `theirs` over that of `ours` must be `target` or more; None shows without judging.

    Where `memory` is given, the peak memory of `ours` over that of `theirs` must be that or less.
    """

    title: str
    case: str
    ours: str
    theirs: str
    target: float | None
    memory: float | None = None


# Beside a peer whose last layer, too, computes the first position alone.
FIRST = "  the same, peer without what is not read"


def inference(shape: str) -> list[Row]:
    case = f"infer-{shape}"
    return [
        Row(f"BERT-small {shape} int8, ORT dynamic", case, "ours-int8", "onnx-dynamic", 1.1),
        Row(FIRST, case, "ours-int8", "onnx-firstdynamic", None),
        Row(f"BERT-small {shape} int8, ORT static QDQ", case, "ours-int8", "onnx-static", None),
        Row(f"BERT-small {shape} f32, ORT", case, "ours-f32", "onnx-f32", 1.0),
        Row(FIRST, case, "ours-f32", "onnx-first", None),
        Row(f"BERT-small {shape} int8, our f32", case, "ours-int8", "ours-f32", 2.0),
    ]


CHECKPOINTED = "ours-checkpointed"

ROWS = [
    Row("train BERT-small b32 s64 f32, torch", "train-bert-small", "ours-f32", "torch-f32", 1.2, memory=0.5),
    Row(FIRST, "train-bert-small", "ours-f32", "torch-first", None),
    Row("train BERT-small b32 s64 bf16, torch autocast", "train-bert-small", "ours-bf16", "torch-bf16", 1.0),
    Row("train BERT-small b32 s64 f32, torch bf16", "train-bert-small", "ours-f32", "torch-bf16", None),
    Row("train BERT L2 H128 b32 s32 f32, torch", "train-bert-tiny", "ours-f32", "torch-f32", 1.2),
    Row(FIRST, "train-bert-tiny", "ours-f32", "torch-first", None),
    Row("train LeNet-5 b64 f32, torch", "train-lenet5", "ours-f32", "torch-f32", 1.2),
    Row("train LeNet-300-100 b64 f32, torch", "train-lenet300", "ours-f32", "torch-f32", 1.2),
    Row("train ResNet-8 b64 f32, torch", "train-resnet8", "ours-f32", "torch-f32", 0.8),
    Row("distil BERT-small to L2 H128 b32 s64, torch", "distil-bert", "ours-f32", "torch-f32", 1.2),
    # At most 30 % slower: the ratio is the plain time over the checkpointed one.
    Row("train BERT L12 H256 b256 checkpointed, our plain", "train-bert-deep", CHECKPOINTED, "ours-f32", 1 / 1.3, memory=0.5),
    *inference("b1-s64"),
    *inference("b1-s128"),
    *inference("b8-s128"),
]
