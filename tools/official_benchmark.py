"""Compare `edgepose benchmark` with the rules of TensorFlow Lite's own tools, on this machine.

Run `python -m tools.official_benchmark [MODEL...] [--rounds N]` in the repository. A model is run
with one thread, in rounds of short turns in shuffled order:

- edgepose: copying the input in, invoke, copying all outputs out;
- benchmark_model, of which no Python package has a binary for Linux: invoke, with the input copied
  in before each run, not timed (tensorflow/lite/tools/benchmark/benchmark_model.cc);
- litert-benchmark of ai-edge-litert: `run_by_name` of the same file as a `CompiledModel`, its input
  written once.

Prints median and mean of a run in processor time, which other processes disturb least, and their
ratios to the first median of the same round: median [lower, upper quartile] of the rounds.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.options import CpuOptions, Options

from edgepose.benchmark import latency
from edgepose.inference.cpu import load_on_cpu
from edgepose.inference.runtime import load_runtime
from edgepose.registry.registry import ModelFile, default_registry

MODELS: Final = ("movenet-lightning-int8", "movenet-thunder-fp16")
WARM_UP_RUNS: Final = 3
RUNS: Final = 20
SEED: Final = 0

Run = Callable[[], int]
"""Runs the model once and returns the processor time in nanoseconds."""


def edgepose_run(model: ModelFile) -> Run:
    """Return a run as `edgepose benchmark` times it."""
    interpreter = load_on_cpu(model.path, runtime="litert", threads=1)
    tensor = latency.input_tensor(interpreter.input, model.name)
    return lambda: latency.timed(interpreter, tensor, time.process_time_ns)


def benchmark_model_run(model: ModelFile) -> Run:
    """Return a run as `benchmark_model` times it."""
    _, module = load_runtime("litert")
    interpreter: Any = module.Interpreter(model_content=model.path.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    tensor = latency.input_tensor(load_on_cpu(model.path, threads=1).input, model.name)
    index = interpreter.get_input_details()[0]["index"]

    def run() -> int:
        interpreter.set_tensor(index, tensor)
        started_ns = time.process_time_ns()
        interpreter.invoke()
        return time.process_time_ns() - started_ns

    return run


def litert_benchmark_run(model: ModelFile) -> Run:
    """Return a run as `litert-benchmark` times it."""
    options = Options(
        hardware_accelerators=HardwareAccelerator.CPU, cpu_options=CpuOptions(num_threads=1)
    )
    compiled = CompiledModel.from_file(str(model.path), options=options)
    signature = next(iter(compiled.get_signature_list()))
    tensor = latency.input_tensor(load_on_cpu(model.path, threads=1).input, model.name)
    inputs = {
        name: compiled.create_input_buffer_by_name(signature, name)
        for name in compiled.get_input_tensor_details(signature)
    }
    outputs = {
        name: compiled.create_output_buffer_by_name(signature, name)
        for name in compiled.get_output_tensor_details(signature)
    }
    for buffer in inputs.values():
        buffer.write(tensor)

    def run() -> int:
        started_ns = time.process_time_ns()
        compiled.run_by_name(signature, inputs, outputs)
        return time.process_time_ns() - started_ns

    return run


METHODS: Final = {
    "edgepose": edgepose_run,
    "benchmark_model": benchmark_model_run,
    "litert-benchmark": litert_benchmark_run,
}


def compare(model: ModelFile, rounds: int) -> None:
    """Print the comparison of one model."""
    runs = {name: method(model) for name, method in METHODS.items()}
    generator = random.Random(SEED)
    medians: dict[str, list[float]] = {name: [] for name in runs}
    means: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in generator.sample(list(runs), len(runs)):
            times_ns = [runs[name]() for _ in range(WARM_UP_RUNS + RUNS)][WARM_UP_RUNS:]
            medians[name].append(statistics.median(times_ns))
            means[name].append(statistics.mean(times_ns))
    print(f"{model.name}, {rounds} rounds of {RUNS} runs, ms of processor time")
    first = medians["edgepose"]
    for kind, figures in (("median", medians), ("mean", means)):
        for name, each in figures.items():
            ratios = [one / other for one, other in zip(each, first, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            ms = statistics.median(each) / 1e6
            print(f"  {name + ', ' + kind:26} {ms:7.3f}  {middle:.3f} [{low:.3f}, {high:.3f}]")


def main() -> None:
    """Print the comparison of each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    for name in arguments.models:
        compare(default_registry().resolve(name), arguments.rounds)


if __name__ == "__main__":
    main()
