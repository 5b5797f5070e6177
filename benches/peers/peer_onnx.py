"""ONNX Runtime's side of an inference case: `peer_onnx.py FOLDER FORM`, with FORM f32, dynamic, static,
first or firstdynamic.

All graph optimizations, and otherwise as it comes.
"""

import sys
from pathlib import Path

import numpy
import onnxruntime
from protocol import THREADS, serve
from safetensors.numpy import load_file


def main() -> None:
    folder, form = Path(sys.argv[1]), sys.argv[2]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(folder / f"{form}.onnx", options, providers=["CPUExecutionProvider"])
    feed = {"ids": load_file(folder / "batches.safetensors")["ids"].astype(numpy.int64)}
    once = lambda: session.run(None, feed)[0]  # noqa: E731
    serve(once().flatten().tolist(), once)


if __name__ == "__main__":
    main()
