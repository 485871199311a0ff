"""What counts as lost, late and survived: pure functions, tested without a daemon."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edgepose.datatypes import EventType
from edgepose.messages import EventMessage

RESUME_LIMIT_S: Final = 5.0
"""Most seconds from the end of a fault's cause to the next pose."""
FALLBACK_LIMIT_S: Final = 1.0
"""Most seconds from the Edge TPU's loss to the first pose of the CPU."""
GAP_LIMIT_S: Final = 0.5
"""Most seconds without a pose of what a fault does not concern."""
KILL_MARGIN_S: Final = 0.05
"""An event due this short before a kill may not have been published."""
SIMULTANEOUS_S: Final = 0.2
"""Two events closer than this may arrive in either order."""


@dataclass(frozen=True, slots=True)
class PoseRecord:
    """The tracks of a pose message, when its frame was captured and when it was published.

    Seconds of the monotonic clock. Events count at the time of capture.
    """

    at_s: float
    track_ids: frozenset[int]
    published_s: float


@dataclass(frozen=True, slots=True)
class ExpectedEvent:
    """An enter or leave event; not `certain` if a kill may have preceded its publication."""

    kind: EventType
    track_id: int
    at_s: float = 0.0
    certain: bool = True

    @property
    def name(self) -> tuple[EventType, int]:
        """Identifies it among the events of one run of the daemon."""
        return self.kind, self.track_id


def expected_events(
    records: Sequence[PoseRecord], *, leave_delay_s: float, killed_at_s: float | None = None
) -> list[ExpectedEvent]:
    """Return the events that follow from the pose messages of one run of the daemon, in order.

    The leave delay begins with the first message without the track: a daemon short of processor
    time may have no frame for longer. At the end all tracks leave, unless the daemon was killed.
    """
    first_seen: dict[int, PoseRecord] = {}
    last_seen: dict[int, float] = {}
    missing: dict[int, float] = {}
    gone: set[int] = set()
    for message in records:
        for track_id in message.track_ids:
            first_seen.setdefault(track_id, message)
            last_seen[track_id] = message.at_s
            missing.pop(track_id, None)
        # A track that returns within its maximum age has not left.
        gone = last_seen.keys() - message.track_ids
        for track_id in gone:
            missing.setdefault(track_id, message.at_s)
    if killed_at_s is None:
        gone = set(last_seen)

    def event(kind: EventType, track_id: int, at_s: float, due_s: float) -> ExpectedEvent:
        certain = killed_at_s is None or due_s + KILL_MARGIN_S < killed_at_s
        return ExpectedEvent(kind, track_id, at_s, certain)

    found = [
        event("enter", track, message.at_s, message.published_s)
        for track, message in first_seen.items()
    ]
    for track in gone:
        # A daemon under load may read its clock a little later.
        at_s = missing.get(track, last_seen[track]) + leave_delay_s
        found.append(event("leave", track, at_s, at_s + SIMULTANEOUS_S))
    return sorted(found, key=lambda event: event.at_s)


def arrivals(payloads: Iterable[bytes]) -> list[tuple[EventType, int]]:
    """Return the events that arrived, in order, without repetitions of a message."""
    events = [msgspec.json.decode(text, type=EventMessage) for text in dict.fromkeys(payloads)]
    return [(event.type, event.track_id) for event in events]


def lost_events(
    expected: Sequence[ExpectedEvent], arrived: Sequence[tuple[EventType, int]]
) -> tuple[list[ExpectedEvent], int]:
    """Return the events that did not arrive in order, and the number of unexpected ones."""
    orders = (expected, _reordered(arrived, expected))
    return min((_lost(order, arrived) for order in orders), key=lambda found: len(found[0]))


def _lost(
    expected: Sequence[ExpectedEvent], arrived: Sequence[tuple[EventType, int]]
) -> tuple[list[ExpectedEvent], int]:
    """Compare by the longest common subsequence: an event in a wrong place is lost."""
    weights = [1.0 if event.certain else 0.001 for event in expected]
    names = [event.name for event in expected]
    start = 0
    while start < min(len(names), len(arrived)) and names[start] == arrived[start]:
        start += 1
    rows, columns = len(names) - start, len(arrived) - start
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            best[i][j] = max(best[i + 1][j], best[i][j + 1])
            if names[start + i] == arrived[start + j]:
                best[i][j] = max(best[i][j], weights[start + i] + best[i + 1][j + 1])
    lost, matched, i, j = [], start, 0, 0
    while i < rows:
        same = j < columns and names[start + i] == arrived[start + j]
        if same and best[i][j] == weights[start + i] + best[i + 1][j + 1]:
            matched, i, j = matched + 1, i + 1, j + 1
        elif j < columns and best[i][j] == best[i][j + 1]:
            j += 1
        else:
            if expected[start + i].certain:
                lost.append(expected[start + i])
            i += 1
    return lost, len(arrived) - matched


def _reordered(
    arrived: Sequence[tuple[EventType, int]], expected: Sequence[ExpectedEvent]
) -> list[ExpectedEvent]:
    """Swap simultaneous events that arrived in the other order."""
    place = {name: index for index, name in enumerate(arrived)}
    ordered = list(expected)
    for i in range(1, len(ordered)):
        before, after = ordered[i - 1], ordered[i]
        if (
            after.at_s - before.at_s < SIMULTANEOUS_S
            and before.track_id != after.track_id
            and place.get(after.name, len(place)) < place.get(before.name, -1)
        ):
            ordered[i - 1], ordered[i] = after, before
    return ordered


def lost_poses(published: Iterable[bytes], arrived: Iterable[bytes]) -> int:
    """Return how many pose messages did not arrive."""
    return (Counter(published) - Counter(arrived)).total()


def wrong_states(
    expected: Mapping[str, bytes | Mapping[str, object]], retained: Mapping[str, bytes]
) -> list[str]:
    """Return the differences between expected and retained messages, one line each.

    For a mapping, the payload is a JSON object that has at least these fields.
    """
    wrong = []
    for topic, wanted in expected.items():
        payload = retained.get(topic)
        if payload is None:
            wrong.append(f"{topic} is missing")
        elif isinstance(wanted, bytes):
            if payload != wanted:
                wrong.append(f"{topic} is {payload!r}, not {wanted!r}")
        else:
            content = msgspec.json.decode(payload)
            wrong += [
                f"{topic}: {key} is {content.get(key)!r}, not {value!r}"
                for key, value in wanted.items()
                if content.get(key) != value
            ]
    return wrong


@dataclass(slots=True)
class Row:
    """The result of one fault; times in seconds, None if there is nothing to measure.

    `fallback_s` is from the Edge TPU's loss to the CPU's first pose, `resumed_s` from the end of
    the cause to the next pose, `returned_s` from there to the Edge TPU's first pose. `gap_s` is the
    longest time without a pose of the cameras that the fault does not concern.
    """

    name: str
    title: str
    detected_s: float | None = None
    fallback_s: float | None = None
    resumed_s: float | None = None
    returned_s: float | None = None
    return_limit_s: float = RESUME_LIMIT_S
    gap_s: float | None = None
    poses_lost: int = 0
    events: int = 0
    events_lost: int = 0
    states_lost: int = 0
    survived: bool = True
    failures: list[str] = field(default_factory=list)
    """One line for each failed check."""
    remarks: list[str] = field(default_factory=list)
    skipped: str | None = None
    """Why it could not run here, if so."""

    def judge(self) -> None:
        """Add the targets that were missed to the failures."""
        if self.fallback_s is not None and self.fallback_s > FALLBACK_LIMIT_S:
            self.failures.append(
                f"the CPU's first pose came {self.fallback_s:.2f} s after the Edge TPU's loss, "
                f"at most {FALLBACK_LIMIT_S:g} s are allowed"
            )
        for what, seconds, limit_s in (
            ("poses", self.resumed_s, RESUME_LIMIT_S),
            ("the Edge TPU", self.returned_s, self.return_limit_s),
        ):
            if seconds is not None and seconds > limit_s:
                self.failures.append(
                    f"{what} returned {seconds:.1f} s after the end of the cause, at most "
                    f"{limit_s:g} s are allowed"
                )
        if self.gap_s is not None and self.gap_s > GAP_LIMIT_S:
            self.failures.append(
                f"no pose of another camera for {self.gap_s:.1f} s, at most {GAP_LIMIT_S:g} s are "
                "allowed"
            )
        if self.events_lost:
            self.failures.append(f"{self.events_lost} of {self.events} events lost")
        if self.states_lost:
            self.failures.append(f"{self.states_lost} states wrong at the broker")
        if not self.survived:
            self.failures.append("not survived")

    @property
    def passed(self) -> bool:
        """Whether it ran and no check failed."""
        return not self.failures and self.skipped is None


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    heads = (
        *("Fault", "Detected after", "Poses again after", "Edge TPU back after", "Longest gap"),
        *("Poses lost", "Events lost", "States lost", "Survived"),
    )
    lines = [f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 2)}|---|"]
    for row in rows:
        if row.skipped is not None:
            cells = [row.title, *["-"] * (len(heads) - 2), "skipped"]
        else:
            resumed = row.fallback_s if row.fallback_s is not None else row.resumed_s
            cells = [
                row.title,
                *map(_seconds, (row.detected_s, resumed, row.returned_s, row.gap_s)),
                str(row.poses_lost),
                f"{row.events_lost} of {row.events}",
                str(row.states_lost),
                "yes" if row.passed else "**no**",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
