"""Who is in a place, the frame or a zone: tracks that enter and leave, and how many are there."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from edgepose.datatypes import Event, EventType
from edgepose.events.head_count import HeadCount
from edgepose.protocols import MAX_RESULT_DELAY_NS

_ZONE_EVENTS: Final[Mapping[str, EventType]] = {"enter": "zone_enter", "leave": "zone_leave"}


@dataclass(frozen=True, slots=True)
class Delays:
    """Until a track enters, until it does not count any more, and until it leaves."""

    on_ms: float = 300
    off_ms: float = 1000
    leave_ms: float = 2000


@dataclass(slots=True)
class _Track:
    """A track that was seen in the place.

    `seen_ns` is how long it was, in effect; `missing_ns` the first frame without it since; `counts`
    means that it was seen for long enough to count, `entered` that its event was sent.
    """

    first_ns: int
    last_ns: int
    seen_ns: int = 0
    missing_ns: int | None = None
    elsewhere: bool = False
    counts: bool = False
    entered: bool = False


class Visits:
    """Debounced visits of a zone, or of the whole frame if it is None.

    A track enters once it was seen there for the on delay, counted from the first frame with it;
    the time before a frame without it then counts against it by half. So a false positive in one
    frame is no visit at any frame rate, and a missed detection only delays one. A track without
    frames for the off delay does not count any more, and must be seen for the on delay again. It
    leaves after the leave delay, or with the off delay if it is seen elsewhere, and at the latest
    when the count falls to zero.

    Times are CLOCK_BOOTTIME ns and may repeat; one that goes back counts as the latest one.
    """

    def __init__(self, zone: str | None = None, delays: Delays = Delays()) -> None:
        self._zone = zone
        folder = "" if zone is None else f"zones/{zone}/"
        self._count_topic, self._presence_topic = f"{folder}count", f"{folder}presence"
        self._tracks: dict[int, _Track] = {}
        self._persons = HeadCount(0)
        self._now_ns = 0
        self.set_delays(delays)

    def set_delays(self, delays: Delays) -> None:
        """Change the delays; visits and count stay."""
        self._on_delay_ns = round(delays.on_ms * 1e6)
        self._off_delay_ns = self._persons.off_delay_ns = round(delays.off_ms * 1e6)
        self._leave_delay_ns = max(round(delays.leave_ms * 1e6), self._off_delay_ns)

    @property
    def count(self) -> int:
        """How many are there."""
        return self._persons.value

    @property
    def states(self) -> dict[str, str]:
        """`count`, and `presence` `ON` or `OFF`: the payload by topic below the camera's."""
        count = self._persons.value
        return {self._count_topic: str(count), self._presence_topic: "ON" if count else "OFF"}

    def update(
        self, track_ids: Collection[int], timestamp_ns: int, in_frame: Collection[int] = ()
    ) -> list[Event]:
        """Add the next frame, with the ids of the tracks there; return the events, leaves first.

        `in_frame` are all tracks of the frame, if these are those of a zone.
        """
        before_ns, now_ns = self._now_ns, max(self._now_ns, timestamp_ns)
        self._now_ns = now_ns
        entered = []
        persons = 0
        for track_id in track_ids:
            track = self._tracks.get(track_id)
            if track is None:
                track = self._tracks[track_id] = _Track(now_ns, now_ns)
            elif (
                track.missing_ns is not None and before_ns - track.missing_ns >= self._off_delay_ns
            ):
                track.counts, track.seen_ns = False, 0
            else:
                track.seen_ns += now_ns - before_ns
            track.last_ns, track.missing_ns = now_ns, None
            if not track.counts and track.seen_ns >= self._on_delay_ns:
                track.counts = True
                if not track.entered:
                    track.entered = True
                    entered.append(self._event("enter", track_id, track.first_ns))
            persons += track.counts
        if len(self._tracks) > len(track_ids):
            self._note_missing(track_ids, before_ns, in_frame)
        self._persons.update(persons, now_ns)
        return self._leave(now_ns) + entered

    def tick(self, timestamp_ns: int) -> list[Event]:
        """Advance the time without a frame; return the events."""
        # A frame captured since may still be published and continue a track.
        past_ns = timestamp_ns - MAX_RESULT_DELAY_NS
        self._persons.tick(past_ns)
        return self._leave(past_ns)

    def lost(self, timestamp_ns: int) -> list[Event]:
        """End all visits at once: the camera is closed or failed, or the zone is removed."""
        self._now_ns = max(self._now_ns, timestamp_ns)
        self._persons.clear()
        return self._end(list(self._tracks))

    def _note_missing(
        self, track_ids: Collection[int], before_ns: int, in_frame: Collection[int]
    ) -> None:
        """Note which tracks are not there in the newest frame."""
        for track_id in self._tracks.keys() - track_ids:
            track = self._tracks[track_id]
            track.elsewhere = track_id in in_frame
            if track.missing_ns is None:
                track.missing_ns = self._now_ns
            if not track.counts:
                track.seen_ns = max(0, track.seen_ns - (self._now_ns - before_ns) // 2)
                if not (track.entered or track.seen_ns):
                    del self._tracks[track_id]

    def _leave(self, now_ns: int) -> list[Event]:
        """End the visits that are over."""
        is_empty = not self._persons.value
        over = []
        for track_id, track in self._tracks.items():
            delay_ns = self._off_delay_ns if track.elsewhere else self._leave_delay_ns
            missing = track.missing_ns is not None and now_ns - track.missing_ns >= delay_ns
            if missing or (is_empty and track.entered):
                over.append(track_id)
        return self._end(over)

    def _end(self, track_ids: Iterable[int]) -> list[Event]:
        ended = [(track_id, self._tracks.pop(track_id)) for track_id in track_ids]
        return [self._event("leave", n, track.last_ns) for n, track in ended if track.entered]

    def _event(self, kind: Literal["enter", "leave"], track_id: int, time_ns: int) -> Event:
        if self._zone is None:
            return Event(kind, track_id, time_ns)
        return Event(_ZONE_EVENTS[kind], track_id, time_ns, zone=self._zone)
