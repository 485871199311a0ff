"""A model on the CPU whose number of threads is measured while it runs."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Final, Literal

from edgepose.errors import EdgeposeError, ModelFileError
from edgepose.inference.cpu import default_threads, load_on_cpu
from edgepose.inference.runtime import RuntimeName, load_runtime, runtime_version
from edgepose.inference.thread_cache import (
    ThreadCache,
    ThreadKey,
    ThreadMeasurement,
    machine_words,
)
from edgepose.inference.thread_trial import ThreadTrial, fewest_threads
from edgepose.monitoring.host import other_cpu_time_s
from edgepose.protocols import Interpreter, Tensor, ThreadChoice
from edgepose.registry.registry import sha256
from edgepose.util.background import run_in_background
from edgepose.util.process import return_free_memory

log = logging.getLogger(__name__)

DELAY_NS: Final = 3_000_000_000
"""From the first frame to the measurement, which has no part in the start of model and camera."""
DEADLINE_NS: Final = 60_000_000_000
BUSY_CORES: Final = 0.25
"""More processor time of other programs than that of so many cores makes a measurement doubtful."""


def load_with_threads(
    path: Path,
    *,
    name: str,
    digest: str | None,
    threads: int | Literal["auto"],
    runtime: RuntimeName | Literal["auto"],
    input_size_wh: tuple[int, int] | None,
    cache: ThreadCache | None,
) -> tuple[Interpreter, Callable[[], ThreadChoice]]:
    """Load a model file for the CPU; also returns what returns its present number of threads.

    `digest` is the sha256 of the file if it is known.
    `auto` is the default without a cache, for tasks that run the model as fast as possible, and the
    number in the cache, in which a number that is missing is measured. Raises what `load_on_cpu`
    raises.
    """
    load = partial(load_on_cpu, path, runtime=runtime, input_size_wh=input_size_wh)
    choice = ThreadChoice(default_threads(), "default")
    if threads != "auto":
        choice = ThreadChoice(threads, "configured")
    elif cache is not None and choice.count > 1:
        counts = range(1, choice.count + 1)
        key = _key(digest or _digest(path), runtime, input_size_wh)
        before = cache.find(key)
        if before is not None:
            choice = ThreadChoice(before.threads, "measured", before.invoke_ms)
        if before is None or before.busy:
            log.info("%s: %s, until it is measured with the first frames", name, choice)
            interpreter = AutoThreadsInterpreter(
                load(threads=choice.count),
                choice,
                partial(_load_again, load, path, key),
                counts,
                partial(_keep, cache, name, key),
            )
            return interpreter, lambda: interpreter.threads
    if cache is not None:
        log.info("%s: %s", name, choice)
    return load(threads=choice.count), lambda: choice


class AutoThreadsInterpreter:
    """Runs every frame, and from the third second on, for some seconds, with other threads too.

    So the model is measured at the pace of the cameras and beside all else that runs, and no frame
    waits for it. `interpreter` is the model with the number of threads of `choice`; `load` loads it
    with another one of `counts` and is called in the background. So is `on_measured`, with the new
    choice, the ms between two frames, and whether the machine was busy with other programs. If a
    model cannot be loaded again, or frames are so few that a minute is not enough, it stays with
    the number it has until the next start.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        choice: ThreadChoice,
        load: Callable[[int], Interpreter],
        counts: Sequence[int],
        on_measured: Callable[[ThreadChoice, float, bool], None],
        *,
        clock_ns: Callable[[], int] = perf_counter_ns,
        other_cpu_s: Callable[[], float | None] = other_cpu_time_s,
    ) -> None:
        self.input, self.outputs = interpreter.input, interpreter.outputs
        self.threads = choice
        self._loaded = {choice.count: interpreter}
        self._load = load
        self._counts = counts
        self._on_measured = on_measured
        self._clock_ns = clock_ns
        self._other_cpu_s = other_cpu_s
        self._begin_ns: int | None = None
        self._loading: Future[dict[int, Interpreter]] | None = None
        self._invoke = self._run_before

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the model; raises AcceleratorError."""
        return self._invoke(tensor)

    def close(self) -> None:
        """Free the model; closing twice is fine."""
        for interpreter in list(self._loaded.values()):
            interpreter.close()

    def _run_before(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the model; load the others when it is time."""
        (interpreter,) = self._loaded.values()
        now_ns = self._clock_ns()
        if self._begin_ns is None:
            self._begin_ns = now_ns + DELAY_NS
        elif self._loading is None and now_ns >= self._begin_ns:
            self._loading = run_in_background("threads", self._load_others)
        elif self._loading is not None and self._loading.done():
            try:
                self._loaded |= self._loading.result()
            except (EdgeposeError, MemoryError) as error:
                log.warning("%s; it stays with %d CPU threads", error, self.threads.count)
                self._invoke = interpreter.invoke
            else:
                self._trial = ThreadTrial(self._counts)
                self._began_ns, self._other_before_s = now_ns, self._other_cpu_s()
                self._invoke = self._run_trial
        return interpreter.invoke(tensor)

    def _load_others(self) -> dict[int, Interpreter]:
        others = (count for count in self._counts if count != self.threads.count)
        return {count: self._load(count) for count in others}

    def _run_trial(self, tensor: Tensor) -> Sequence[Tensor]:
        trial = self._trial
        interpreter = self._loaded[trial.count]
        started_ns = self._clock_ns()
        outputs = interpreter.invoke(tensor)
        ended_ns = self._clock_ns()
        trial.add(started_ns, ended_ns)
        if trial.finished:
            count = fewest_threads(trial.invoke_ns, trial.interval_ns)
            invoke_ms = {tried: round(ns / 1e6, 2) for tried, ns in trial.invoke_ns.items()}
            self.threads = ThreadChoice(count, "measured", invoke_ms)
            interval_ms = round(trial.interval_ns / 1e6, 2)
            busy = self._was_busy(ended_ns)
            self._end(lambda: self._on_measured(self.threads, interval_ms, busy))
        elif ended_ns - self._began_ns > DEADLINE_NS:
            self._end(lambda: None)
        return outputs

    def _was_busy(self, now_ns: int) -> bool:
        """Whether other programs took much processor time during the trial."""
        before_s, after_s = self._other_before_s, self._other_cpu_s()
        if before_s is None or after_s is None:
            return False
        return after_s - before_s > BUSY_CORES * (now_ns - self._began_ns) / 1e9

    def _end(self, then: Callable[[], None]) -> None:
        """Stay with the number of threads that was chosen; free the others in the background."""
        chosen = self._loaded.pop(self.threads.count)
        others, self._loaded = self._loaded, {self.threads.count: chosen}
        self._invoke = chosen.invoke

        def finish() -> None:
            for other in others.values():
                other.close()
            return_free_memory()
            then()

        run_in_background("threads", finish)


def _key(
    digest: str, runtime: RuntimeName | Literal["auto"], input_size_wh: tuple[int, int] | None
) -> ThreadKey:
    name, _ = load_runtime(runtime)
    size = "" if input_size_wh is None else " {}x{}".format(*input_size_wh)
    return ThreadKey(digest + size, f"{name} {runtime_version(name)}", machine_words())


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise ModelFileError(
            f"{path}: the file cannot be read: {error.strerror or error}; check the path and its "
            "permissions"
        ) from None


def _load_again(
    load: Callable[..., Interpreter], path: Path, key: ThreadKey, threads: int
) -> Interpreter:
    """Load the same model with another number of threads; raises ModelFileError if it changed."""
    if not key.model.startswith(_digest(path)):
        raise ModelFileError(f"{path}: the file was replaced, so its threads are not measured")
    return load(threads=threads)


def _keep(
    cache: ThreadCache,
    name: str,
    key: ThreadKey,
    choice: ThreadChoice,
    interval_ms: float,
    busy: bool,
) -> None:
    log.info(
        "%s: %s, with frames %.0f ms apart%s",
        name,
        choice,
        interval_ms,
        ", while other programs were busy; measured again at the next start" if busy else "",
    )
    cache.keep(ThreadMeasurement(key, choice.count, dict(choice.invoke_ms), interval_ms, busy))
