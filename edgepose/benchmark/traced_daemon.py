"""The daemon in this process, with a trace of every frame it publishes."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

from edgepose.clock import boottime_ns
from edgepose.config.schema import Config
from edgepose.daemon.app import App, topics_of
from edgepose.daemon.signals import Signals
from edgepose.daemon.state_folder import StateFolder
from edgepose.datatypes import Frame
from edgepose.detection.crop_state import CropState
from edgepose.inference.failover import SingleModel
from edgepose.pipeline import Detection, FrameResult, Pipeline
from edgepose.protocols import FrameSource, LoadedModel


@dataclass(frozen=True, slots=True)
class FrameTrace:
    """One published frame; its image is not kept.

    `times_ns`, CLOCK_BOOTTIME: the frame's timestamp, then the end of each stage but `transport`,
    in the order of `StageName`. `cpu_ns` is the processor time that this process has used by then.
    """

    sequence: int
    times_ns: Sequence[int]
    cpu_ns: int


class TracingPipeline(Pipeline):
    """A pipeline that appends a trace of every frame to `traces`."""

    def __init__(self, traces: list[FrameTrace], *arguments: Any, **options: Any) -> None:
        # Every frame: otherwise one without a person would count as a lost message.
        super().__init__(*arguments, **options, every_frame=True)
        self._traces = traces
        self._detect_ns: dict[int, int] = {}

    def detect(self, frame: Frame, crop: CropState) -> Detection:
        """Record when the detection starts."""
        self._detect_ns[frame.sequence] = boottime_ns()
        return super().detect(frame, crop)

    def publish(self, detection: Detection) -> FrameResult:
        """Record when a frame is published."""
        publish_ns = boottime_ns()
        result = super().publish(detection)
        published_ns, cpu_ns = boottime_ns(), time.process_time_ns()
        frame, timings = result.frame, result.timings
        detect_ns = self._detect_ns.pop(frame.sequence)
        detect_stages = (timings.preprocess_ns, timings.invoke_ns, timings.decode_ns)
        times_ns = (
            frame.timestamp_ns,
            *accumulate(detect_stages, initial=detect_ns),
            *accumulate((timings.track_ns, timings.smooth_ns), initial=publish_ns),
            published_ns,
        )
        self._traces.append(FrameTrace(frame.sequence, times_ns, cpu_ns))
        return result


class OpenModel(SingleModel):
    """A model that stays open when the daemon closes it."""

    def close(self) -> None:
        """Leave the model open."""


def run_daemon(
    config: Config, model: LoadedModel, source: FrameSource, signals: Signals
) -> list[FrameTrace]:
    """Run the daemon of one camera until its source ends, and return the traces of its frames.

    Raises EdgeposeError if a part fails, and KeyboardInterrupt if a signal stopped the daemon.
    """
    traces: list[FrameTrace] = []
    with tempfile.TemporaryDirectory(prefix="edgepose-benchmark-") as folder:
        app = App(
            config,
            _interrupt,
            StateFolder(Path(folder), topics_of(config), None),
            models=OpenModel(model),
            new_source=lambda: source,
            new_pipeline=partial(TracingPipeline, traces),
        )
        app.daemon.run(signals)
    if signals.stop_requested:
        raise KeyboardInterrupt
    return traces


def _interrupt() -> NoReturn:
    """Take SIGHUP, which asks for a reload, as the end of the terminal."""
    raise KeyboardInterrupt
