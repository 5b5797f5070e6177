"""Writes `f32.onnx`, `dynamic.onnx` and `static.onnx` into a case's folder, and `first.onnx` and `firstdynamic.onnx`, whose last
layers compute the first position alone: `export_onnx.py FOLDER`.

The integer forms are ONNX Runtime's own: dynamic per channel, and static QDQ per channel calibrated on the same rows as
ours. Run apart from the peers, so that neither torch nor the quantizer counts in their memory.
"""

import sys
from pathlib import Path

import models
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.torch import load_file


class Rows(CalibrationDataReader):
    """The calibration rows, cut into batches of the case's size."""

    def __init__(self, folder: Path, size: int):
        rows = load_file(folder / "batches.safetensors")["calibration"].long()
        self.batches = iter(rows.split(size))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"ids": batch.numpy()}


def main() -> None:
    folder = Path(sys.argv[1])
    model = models.load(folder / "model").eval()
    ids = load_file(folder / "batches.safetensors")["ids"].long()
    prepared = folder / "prepared.onnx"
    # What is prepared last is what the static form is made of.
    for f32, dynamic, models.Bert.last_for_first in (("first", "firstdynamic", True), ("f32", "dynamic", False)):
        path = folder / f"{f32}.onnx"
        with torch.no_grad():
            torch.onnx.export(model, (ids,), path, input_names=["ids"], output_names=["logits"], dynamo=False)
        quant_pre_process(path, prepared)
        quantize_dynamic(prepared, folder / f"{dynamic}.onnx", per_channel=True, weight_type=QuantType.QInt8)
    quantize_static(
        prepared,
        folder / "static.onnx",
        Rows(folder, len(ids)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


if __name__ == "__main__":
    main()
