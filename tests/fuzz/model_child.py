"""Gives damaged models to a runtime, each in a process of its own: it may die of one.

`python -m tests.fuzz.model_child MODEL RUNTIME FIRST COUNT` prints what became of them as JSON.
"""

import json
import os
import random
import resource
import signal
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgepose.errors import AcceleratorError, ModelError
from edgepose.inference.cpu import CpuAccelerator
from edgepose.registry import tflite_file as flatbuffer

LOADED, RAN_BADLY, REFUSED = range(3)
_NAMES = {LOADED: "runs", RAN_BADLY: "fails to run", REFUSED: "refused"}
_MODULES = {"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
_PATIENCE_S = 30
_MEMORY_BYTES = 6 << 30
# Weights say nothing about the structure: damage there only changes results.
_LONG_BYTES = 64


def structure(model: bytes) -> list[int]:
    """Return the positions of all bytes but those of weights and long lists of numbers."""
    keep = np.ones(len(model), bool)
    for start, end in _long_vectors(model):
        keep[start:end] = False
    positions: list[int] = np.flatnonzero(keep).tolist()
    return positions


def _long_vectors(model: bytes) -> Iterator[tuple[int, int]]:
    reader = flatbuffer._Reader(model, "the model")
    vectors = [(reader.indirect(slot), 0, 1) for slot in reader.table_vector(reader.root, 4)]
    for subgraph in reader.subgraphs():
        for slot in reader.table_vector(subgraph, 0):
            field = reader.field(reader.indirect(slot), 4)
            if field is not None:
                table = reader.indirect(field)
                vectors += [(table, 0, 4), (table, 1, 4), (table, 2, 4), (table, 3, 8)]
    for table, number, size in vectors:
        field = reader.field(table, number)
        if field is not None:
            start, length = reader._vector(field, size)
            if length * size > _LONG_BYTES:
                yield start + 16, start + length * size


def damaged(model: bytes, places: list[int], chance: random.Random) -> bytes:
    """Return a model with a bit, a byte, a number or a few of them changed, or its end cut off."""
    data = bytearray(model)
    at = chance.choice(places)
    word = min(at & ~3, len(data) - 4)
    match chance.randrange(7):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at] = chance.randrange(256)
        case 2:
            odd = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, len(data), len(data) - word)
            struct.pack_into("<I", data, word, chance.choice((*odd, chance.randrange(1 << 32))))
        case 3:
            struct.pack_into("<i", data, word, chance.randrange(-3, 300))
        case 4:
            start, length = chance.choice(places) & ~3, 4 * chance.randrange(1, 9)
            data[word : word + length] = data[start : start + length]
        case 5:
            del data[chance.choice((chance.randrange(len(data)), len(data) - 1, len(data) - 100)) :]
        case _:
            for _ in range(chance.randrange(2, 9)):
                data[chance.choice(places)] = chance.randrange(256)
    return bytes(data)


def _try(path: Path, runtime: str) -> int:
    """Do what the daemon does with a model before its first frame, and the first frame."""
    try:
        flatbuffer.check(path.read_bytes(), name=str(path))
        loaded = CpuAccelerator(runtime=runtime, threads=1).load(path)  # type: ignore[arg-type]
    except (ModelError, AcceleratorError):
        return REFUSED
    try:
        loaded.invoke(np.zeros(loaded.input.shape, loaded.input.dtype))
    except AcceleratorError:
        return RAN_BADLY
    return LOADED


def _outcome(path: Path, runtime: str) -> str:
    pid = os.fork()
    if pid == 0:
        code = 100
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
            signal.alarm(_PATIENCE_S)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            code = _try(path, runtime)
        except MemoryError:
            code = 101
        finally:
            # Never back into the loop of the parent.
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return signal.Signals(-code).name
    return _NAMES.get(code, "MemoryError" if code == 101 else "another exception")


def main(model_path: str, runtime: str, first: str, count: str) -> None:
    """Print how many of the damaged models ran, were refused, or ended their process."""
    model = Path(model_path).read_bytes()
    places = structure(model)
    # Imported once, before the processes part: it takes longer than all the rest.
    import_module(_MODULES[runtime])
    outcomes: Counter[str] = Counter()
    deadly: list[tuple[int, str]] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.tflite"
        for seed in range(int(first), int(first) + int(count)):
            path.write_bytes(damaged(model, places, random.Random(seed)))
            outcome = _outcome(path, runtime)
            outcomes[outcome] += 1
            if outcome not in _NAMES.values():
                deadly.append((seed, outcome))
    sys.stdout.write(json.dumps({"outcomes": outcomes, "deadly": deadly}))


if __name__ == "__main__":
    main(*sys.argv[1:])
