"""Drives a runtime and its Edge TPU library from a process that may die or hang of it.

    probe.py RUNTIME_MODULE MODEL TENSOR.npy [DEVICE]

Does what its standard input says, a word a line, and answers each with a line of JSON: `create`
the delegate, `load` the model, `invoke` it; `ping` is answered by another thread than those.
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
        # A float32 written as the shortest decimal of its double comes back as the same float32.
        return [interpreter.get_tensor(entry["index"]).tolist() for entry in details]

    steps: dict[str, Callable[[], Any]] = {"create": create, "load": load, "invoke": invoke}
    orders: SimpleQueue[str] = SimpleQueue()

    def work() -> None:
        while True:
            order = orders.get()
            started_ns = time.monotonic_ns()
            try:
                outputs = steps[order]()
                took_ns = time.monotonic_ns() - started_ns
                answer = {"outputs": outputs, "took_ns": took_ns}
            except Exception as error:  # noqa: BLE001 - which error it is, is what the test asks
                answer = {"error": type(error).__name__, "text": str(error)}
            _say({"did": order, **answer})

    threading.Thread(target=work, daemon=True).start()
    for line in sys.stdin:
        if line.strip() == "ping":
            _say({"did": "ping"})
        else:
            orders.put(line.strip())


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
