"""From the configuration to the detectors of events; beside `build` it names concrete classes."""

import msgspec

from edgepose.config.people import ALL_EXERCISES, RepetitionsConfig
from edgepose.config.schema import CameraConfig, Config
from edgepose.events.detectors import Detectors
from edgepose.events.exercises import BODIES, MOVEMENTS, Movement
from edgepose.events.falls import FallDetector
from edgepose.events.posture import LogisticPostures
from edgepose.events.posture_detector import PostureDetector
from edgepose.events.presence import PresenceDetector
from edgepose.events.repetitions import RepetitionDetector
from edgepose.events.visits import Delays
from edgepose.events.zones import Zone
from edgepose.protocols import EventDetector, PostureEstimator


def build_postures(
    config: Config, running: PostureEstimator | None = None, *, average: bool = True
) -> PostureEstimator | None:
    """Return what estimates postures, the running one if it is needed still; None if it is not.

    Without track ids there is nothing to `average`.
    """
    if not (config.posture.enabled or config.falls.enabled):
        return None
    return running or LogisticPostures(average=average)


def build_detectors(config: Config, camera: CameraConfig) -> Detectors:
    """Return the detectors of a camera's states and events."""
    detectors = Detectors()
    apply_detectors(detectors, config, camera)
    return detectors


def apply_detectors(detectors: Detectors, config: Config, camera: CameraConfig) -> None:
    """Apply settings to running detectors; their states stay."""
    on_ms, off_ms = config.presence.on_delay_ms, config.presence.off_delay_ms
    # A track that can still be continued under its id has not left.
    delays = Delays(on_ms, off_ms, leave_ms=max(off_ms, config.tracking.max_age_ms))
    zones = [Zone(**msgspec.structs.asdict(zone)) for zone in camera.zones]
    presence = detectors.running(PresenceDetector)
    presence.configure(delays, [zone for zone in zones if zone.exclude != "all"])
    parts: list[EventDetector] = [presence]
    if config.posture.enabled:
        posture = detectors.running(PostureDetector)
        posture.set_delays(dwell_ms=config.posture.dwell_ms, off_delay_ms=off_ms)
        parts.append(posture)
    if config.falls.enabled:
        falls = detectors.running(FallDetector)
        falls.configure(
            fall_ms=config.falls.fall_ms,
            lying_ms=config.falls.lying_ms,
            recovery_ms=config.falls.recovery_ms,
            zones=[zone for zone in zones if zone.exclude == "falls"],
        )
        parts.append(falls)
    if config.repetitions.exercise is not None:
        repetitions = detectors.running(RepetitionDetector)
        repetitions.set_movements(_movements(config.repetitions))
        parts.append(repetitions)
    excluded = [zone for zone in zones if zone.exclude == "all"]
    detectors.replace(parts, excluded=excluded, on_delay_ms=on_ms)


def _movements(config: RepetitionsConfig) -> tuple[Movement, ...]:
    """Return the exercises that are counted."""
    name, joint, start, turn = config.exercise, config.joint, config.start_angle, config.turn_angle
    if name is None or name == ALL_EXERCISES:
        return tuple(MOVEMENTS.values())
    if joint is None or start is None or turn is None:
        return (MOVEMENTS[name],)
    return (Movement(name, joint, start, turn, BODIES[config.body], each_side=config.each_side),)
