"""Runs a runtime and its Edge TPU library in a process that may die or hang.

    probe.py RUNTIME_MODULE MODEL TENSOR.npy [DEVICE]

Reads one command per line from stdin and answers each with a line of JSON: `create` the delegate,
`load` the model, `invoke` it. Another thread answers `ping`.
"""

import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np


def main() -> None:
    runtime, model, tensor, *device = sys.argv[1:]
    module = importlib.import_module(runtime)
    held: dict[str, Any] = {}

    def create() -> None:
        options = {"device": device[0]} if device else {}
        held["delegate"] = module.load_delegate("libedgetpu.so.1", options)

    def load() -> None:
        delegates = [held["delegate"]] if "delegate" in held else []
        interpreter = module.Interpreter(model, num_threads=1, experimental_delegates=delegates)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load(tensor))
        held["interpreter"] = interpreter

    def invoke() -> list[Any]:
        interpreter = held["interpreter"]
        interpreter.invoke()
        details = interpreter.get_output_details()
        # A float32 written as the shortest decimal of its double is read as the same float32.
        return [interpreter.get_tensor(entry["index"]).tolist() for entry in details]

    steps: dict[str, Callable[[], Any]] = {"create": create, "load": load, "invoke": invoke}
    commands: SimpleQueue[str] = SimpleQueue()

    def work() -> None:
        while True:
            command = commands.get()
            started_ns = time.monotonic_ns()
            try:
                outputs = steps[command]()
                took_ns = time.monotonic_ns() - started_ns
                answer = {"outputs": outputs, "took_ns": took_ns}
            except Exception as error:  # noqa: BLE001 - the test checks the kind of error
                answer = {"error": type(error).__name__, "text": str(error)}
            _send({"did": command, **answer})

    threading.Thread(target=work, daemon=True).start()
    for line in sys.stdin:
        if line.strip() == "ping":
            _send({"did": "ping"})
        else:
            commands.put(line.strip())


def _send(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
