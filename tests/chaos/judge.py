"""What counts as lost, as late and as survived: pure functions, so that the table cannot lie."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from edgepose.messages import EventMessage

RESUME_LIMIT_S: Final = 5.0
"""Poses come again this soon after the cause of a fault is gone."""
STAND_IN_LIMIT_S: Final = 1.0
"""The CPU's first pose comes this soon after the Edge TPU's death."""
IN_THE_MAKING_S: Final = 0.05
"""What a daemon was about to say when it was killed this soon after, it had not said yet."""
AT_ONCE_S: Final = 0.2
"""Which of two things came first cannot be told from outside where they are closer than this."""

Kind = Literal["enter", "leave"]


@dataclass(frozen=True, slots=True)
class Told:
    """Who was in a pose message: when the frame was taken, and when that was said.

    Seconds of the monotonic clock; what was seen late happened earlier all the same.
    """

    at_s: float
    track_ids: frozenset[int]
    said_s: float


@dataclass(frozen=True, slots=True)
class Happening:
    """Somebody came or went; not `certain` where a kill may have come before the daemon knew."""

    kind: Kind
    track_id: int
    at_s: float = 0.0
    certain: bool = True

    @property
    def name(self) -> tuple[Kind, int]:
        """What tells it apart from the others of one life of the daemon."""
        return self.kind, self.track_id


def happenings(
    told: Sequence[Told], *, leave_delay_s: float, killed_at_s: float | None = None
) -> list[Happening]:
    """Return who came and went, in order, by the pose messages of one life of the daemon.

    Whoever is there at the end leaves with it, unless the daemon was killed.
    """
    first_seen: dict[int, Told] = {}
    last_seen: dict[int, float] = {}
    gone: set[int] = set()
    for message in told:
        for track_id in message.track_ids:
            first_seen.setdefault(track_id, message)
            last_seen[track_id] = message.at_s
        # A track that comes back in time had not left.
        gone = last_seen.keys() - message.track_ids
    if killed_at_s is None:
        gone = set(last_seen)

    def happening(kind: Kind, track_id: int, at_s: float, known_s: float) -> Happening:
        certain = killed_at_s is None or known_s + IN_THE_MAKING_S < killed_at_s
        return Happening(kind, track_id, at_s, certain)

    found = [
        happening("enter", track, message.at_s, message.said_s)
        for track, message in first_seen.items()
    ]
    for track in gone:
        # A daemon under load may look at its clock a little later.
        at_s = last_seen[track] + leave_delay_s
        found.append(happening("leave", track, at_s, at_s + AT_ONCE_S))
    return sorted(found, key=lambda happening: happening.at_s)


def arrivals(payloads: Iterable[bytes]) -> list[tuple[Kind, int]]:
    """Return what arrived, in order; the same message sent again is one."""
    events = [msgspec.json.decode(text, type=EventMessage) for text in dict.fromkeys(payloads)]
    return [(event.type, event.track_id) for event in events]


def lost_events(
    expected: Sequence[Happening], arrived: Sequence[tuple[Kind, int]]
) -> tuple[list[Happening], int]:
    """Return the events that did not arrive in their order, and how many nothing explains."""
    orders = (expected, _in_the_order_of(arrived, expected))
    return min((_lost(order, arrived) for order in orders), key=lambda found: len(found[0]))


def _lost(
    expected: Sequence[Happening], arrived: Sequence[tuple[Kind, int]]
) -> tuple[list[Happening], int]:
    """Compare by the longest common subsequence: what arrived in a wrong place is lost."""
    weights = [1.0 if happening.certain else 0.001 for happening in expected]
    names = [happening.name for happening in expected]
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


def _in_the_order_of(
    arrived: Sequence[tuple[Kind, int]], expected: Sequence[Happening]
) -> list[Happening]:
    """Put what happened at once into the order in which it arrived."""
    place = {name: index for index, name in enumerate(arrived)}
    ordered = list(expected)
    for i in range(1, len(ordered)):
        before, after = ordered[i - 1], ordered[i]
        if (
            after.at_s - before.at_s < AT_ONCE_S
            and before.track_id != after.track_id
            and place.get(after.name, len(place)) < place.get(before.name, -1)
        ):
            ordered[i - 1], ordered[i] = after, before
    return ordered


def lost_poses(made: Iterable[bytes], arrived: Iterable[bytes]) -> int:
    """Return how many pose messages were made that did not arrive."""
    return (Counter(made) - Counter(arrived)).total()


def wrong_states(
    expected: Mapping[str, bytes | Mapping[str, object]], retained: Mapping[str, bytes]
) -> list[str]:
    """Return, in words, the topics on which the broker does not keep what is so.

    For a mapping, the payload is a JSON object that has at least these fields.
    """
    wrong = []
    for topic, wanted in expected.items():
        payload = retained.get(topic)
        if payload is None:
            wrong.append(f"{topic} is not there")
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
    """What became of one fault; times in seconds, None where there is nothing to measure.

    `stood_in_s` is from the Edge TPU's death to the CPU's first pose, `resumed_s` from the end of
    the cause to the next pose, `returned_s` from there to the Edge TPU's first pose.
    """

    name: str
    title: str
    noticed_s: float | None = None
    stood_in_s: float | None = None
    resumed_s: float | None = None
    returned_s: float | None = None
    return_limit_s: float = RESUME_LIMIT_S
    poses_lost: int = 0
    events: int = 0
    events_lost: int = 0
    states_lost: int = 0
    survived: bool = True
    failures: list[str] = field(default_factory=list)
    """Whatever was not as it must be, in words."""
    remarks: list[str] = field(default_factory=list)
    skipped: str | None = None
    """Why it could not be tried here."""

    def judge(self) -> None:
        """Add the targets that were missed to the failures."""
        if self.stood_in_s is not None and self.stood_in_s > STAND_IN_LIMIT_S:
            self.failures.append(
                f"the CPU's first pose came {self.stood_in_s:.2f} s after the Edge TPU's death, "
                f"at most {STAND_IN_LIMIT_S:g} s are allowed"
            )
        for what, seconds, limit_s in (
            ("poses", self.resumed_s, RESUME_LIMIT_S),
            ("the Edge TPU", self.returned_s, self.return_limit_s),
        ):
            if seconds is not None and seconds > limit_s:
                self.failures.append(
                    f"{what} came back {seconds:.1f} s after the cause was gone, at most "
                    f"{limit_s:g} s are allowed"
                )
        if self.events_lost:
            self.failures.append(f"{self.events_lost} of {self.events} events lost")
        if self.states_lost:
            self.failures.append(f"{self.states_lost} states wrong at the broker")
        if not self.survived:
            self.failures.append("not survived")

    @property
    def passed(self) -> bool:
        """Whether all is as it must be."""
        return not self.failures and self.skipped is None


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    heads = (
        *("Fault", "Noticed after", "Poses again after", "Edge TPU back after"),
        *("Poses lost", "Events lost", "States lost", "Survived"),
    )
    lines = [f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 2)}|---|"]
    for row in rows:
        if row.skipped is not None:
            cells = [row.title, *["-"] * (len(heads) - 2), "not tried"]
        else:
            again = row.stood_in_s if row.stood_in_s is not None else row.resumed_s
            cells = [
                row.title,
                *map(_seconds, (row.noticed_s, again, row.returned_s)),
                str(row.poses_lost),
                f"{row.events_lost} of {row.events}",
                str(row.states_lost),
                "yes" if row.survived else "**no**",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
