"""ONNX Runtime's side of an inference case: `peer_onnx.py FOLDER FORM`, with FORM f32, dynamic or static.

All graph optimizations, one thread a core, and otherwise as it comes.
"""

import os
import sys
from pathlib import Path

import numpy
import onnxruntime
from protocol import serve
from safetensors.numpy import load_file


def main() -> None:
    folder, form = Path(sys.argv[1]), sys.argv[2]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = os.cpu_count()
    session = onnxruntime.InferenceSession(folder / f"{form}.onnx", options, providers=["CPUExecutionProvider"])
    feed = {"ids": load_file(folder / "batch.safetensors")["ids"].astype(numpy.int64)}
    once = lambda: session.run(None, feed)[0]  # noqa: E731
    serve(once().flatten().tolist(), once, warm_up=2)


if __name__ == "__main__":
    main()
