"""A benchmark backend whose models take exactly as long as a test sets, on a fake clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgepose.benchmark.backends import Backend
from edgepose.benchmark.latency import Instruments
from edgepose.datatypes import TensorSpec
from edgepose.errors import EdgeposeError
from edgepose.protocols import Interpreter, Tensor

MS = 1_000_000
INPUT = TensorSpec("serving_default_input", (1, 192, 192, 3), np.dtype(np.uint8))


@dataclass
class Bench:
    """A fake clock, and what was run on it.

    `cost_ms` is the duration of the next invoke, from the model's stem, the number of its loads
    (from 1) and of its invokes since then (from 0, the first inference).
    """

    cost_ms: Callable[[str, int, int], float]
    load_ms: float = 0.0
    now_ns: int = 1_000_000_000
    inputs: list[Tensor] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    loads: dict[str, int] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    refuse: Callable[[str], EdgeposeError | None] = lambda _: None
    on_invoke: Callable[[], None] = lambda: None

    def instruments(
        self,
        other_cpu_share: float = 0.0,
        frequency: tuple[float, float] | None = None,
        throttling: tuple[str, ...] = (),
    ) -> Instruments:
        """Return this clock, a constant CPU share of other processes, and the given values."""
        return _FakeInstruments(self, other_cpu_share, frequency, throttling)

    def backend(self, name: str = "litert") -> Backend:
        """Return the backend."""
        return Backend(name, "cpu", "litert", "9.9", self._load)

    def spend(self, milliseconds: float) -> None:
        """Advance the clock."""
        self.now_ns += round(milliseconds * MS)

    def _load(self, path: Path, threads: int, size_wh: tuple[int, int] | None) -> Interpreter:
        error = self.refuse(path.stem)
        if error is not None:
            raise error
        self.spend(self.load_ms)
        self.loads[path.stem] = self.loads.get(path.stem, 0) + 1
        self.order.append(path.stem)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return _FakeInterpreter(self, path.stem, self.loads[path.stem])


@dataclass
class _FakeInstruments(Instruments):
    bench: Bench
    other_cpu_share: float
    frequency: tuple[float, float] | None
    throttling_flags: tuple[str, ...]

    def clock_ns(self) -> int:
        return self.bench.now_ns

    def other_cpu_s(self) -> float:
        return self.bench.now_ns / 1e9 * self.other_cpu_share

    def frequency_mhz(self) -> tuple[float, float] | None:
        return self.frequency

    def throttling(self) -> tuple[str, ...]:
        return self.throttling_flags


class _FakeInterpreter:
    input = INPUT
    outputs: tuple[TensorSpec, ...] = (TensorSpec("out", (1, 1, 17, 3), np.dtype(np.float32)),)

    def __init__(self, bench: Bench, model: str, load: int) -> None:
        self._bench, self._model, self._load = bench, model, load
        self._invokes = 0

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        bench = self._bench
        bench.on_invoke()
        bench.inputs.append(tensor)
        bench.spend(bench.cost_ms(self._model, self._load, self._invokes))
        self._invokes += 1
        return [np.zeros((1, 1, 17, 3), np.float32)]

    def close(self) -> None:
        self._bench.open -= 1
