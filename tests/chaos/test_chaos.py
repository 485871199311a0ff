"""Tests of the fault suite itself: losses, delays and crashes are reported.

The faults take minutes and are run by `make chaos`.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgepose.datatypes import EventType
from edgepose.messages import EventMessage
from tests.chaos import __main__ as suite
from tests.chaos import judge
from tests.chaos.hanging import HangingFolder
from tests.chaos.judge import ExpectedEvent, PoseRecord, Row
from tests.chaos.observer import Observer, WaitTimeoutError, wait
from tests.chaos.packets import MqttProxy, PacketKind
from tests.chaos.registry import FAULTS, Fault, UnavailableError
from tests.chaos.rig import NAMESPACE_VARIABLE, TOPICS, Rig
from tests.conftest import ROOT
from tests.mosquitto import Mosquitto

DELAY_S = 0.5


def records(*entries: tuple[float, set[int]]) -> list[PoseRecord]:
    return [PoseRecord(at_s, frozenset(ids), at_s) for at_s, ids in entries]


def names(expected_events: list[ExpectedEvent]) -> list[tuple[EventType, int]]:
    return [event.name for event in expected_events]


VISITS = records((0.0, {1}), (1.0, {1}), (1.1, set()), (3.0, {2}), (3.9, {2}), (4.0, set()))
EXPECTED: list[tuple[EventType, int]] = [("enter", 1), ("leave", 1), ("enter", 2), ("leave", 2)]


def test_judge_derives_enter_and_leave_from_poses() -> None:
    assert names(judge.expected_events(VISITS, leave_delay_s=DELAY_S)) == EXPECTED


def test_judge_gap_within_track_age_is_no_leave() -> None:
    gap = records((0.0, {1}), (0.1, set()), (0.2, {1}), (0.3, set()), (9.0, set()))
    assert names(judge.expected_events(gap, leave_delay_s=DELAY_S)) == EXPECTED[:2]


def test_judge_late_frame_counts_at_its_timestamp() -> None:
    """A frame on which the Edge TPU hung is published after the next track could have entered."""
    late = [
        PoseRecord(0.0, frozenset({1}), 0.1),
        PoseRecord(0.1, frozenset(), 0.9),
        PoseRecord(0.9, frozenset({2}), 0.91),
    ]
    assert names(judge.expected_events(late, leave_delay_s=DELAY_S))[:3] == [
        ("enter", 1),
        ("leave", 1),
        ("enter", 2),
    ]


def test_judge_gap_without_frames_is_no_leave() -> None:
    """The leave delay begins with the first frame without the track."""
    gap = records((0.0, {1}), (9.0, {2}), (9.1, {2}), (9.9, {2}))
    expected = judge.expected_events(gap, leave_delay_s=DELAY_S)
    assert names(expected) == [("enter", 1), ("enter", 2), ("leave", 1), ("leave", 2)]
    assert [event.at_s for event in expected] == [0.0, 9.0, 9.0 + DELAY_S, 9.9 + DELAY_S]


def test_judge_kill_excuses_only_events_in_progress() -> None:
    killed = judge.expected_events(VISITS, leave_delay_s=DELAY_S, killed_at_s=3.95)
    assert [h.name for h in killed if h.certain] == EXPECTED[:3]
    just_entered = judge.expected_events(VISITS[:4], leave_delay_s=DELAY_S, killed_at_s=3.02)
    assert [h.name for h in just_entered if h.certain] == EXPECTED[:2]
    assert names(judge.expected_events(VISITS[:2], leave_delay_s=DELAY_S, killed_at_s=1.2)) == [
        ("enter", 1)
    ]


@pytest.mark.parametrize(
    ("arrived", "lost", "unexplained"),
    [
        (EXPECTED, [], 0),
        (EXPECTED[:2] + EXPECTED[3:], [("enter", 2)], 0),
        ([], EXPECTED, 0),
        ([EXPECTED[1], EXPECTED[0], *EXPECTED[2:]], [("leave", 1)], 1),
        ([*EXPECTED[:2], ("enter", 7), *EXPECTED[2:]], [], 1),
    ],
)
def test_judge_event_out_of_order_is_lost(
    arrived: list[tuple[EventType, int]], lost: list[tuple[EventType, int]], unexplained: int
) -> None:
    found = judge.lost_events(judge.expected_events(VISITS, leave_delay_s=DELAY_S), arrived)
    assert (sorted(names(found[0])), found[1]) == (sorted(lost), unexplained)


def test_judge_simultaneous_events_in_any_order() -> None:
    both = [ExpectedEvent("leave", 1, 5.0), ExpectedEvent("enter", 2, 5.1)]
    for arrived in ([both[0].name, both[1].name], [both[1].name, both[0].name]):
        assert judge.lost_events(both, arrived) == ([], 0)
    apart = [ExpectedEvent("leave", 1, 5.0), ExpectedEvent("enter", 2, 5.9)]
    assert len(judge.lost_events(apart, [apart[1].name, apart[0].name])[0]) == 1


def test_judge_duplicate_message_counts_once() -> None:
    def event(kind: EventType, second: int) -> bytes:
        time = f"2026-01-31T12:00:{second:02}.000000Z"
        return msgspec.json.encode(
            EventMessage(type=kind, node="a", camera="b", track_id=1, time=time)
        )

    # Of another run of the daemon, whose ids started again.
    payloads = [event("enter", 1), event("leave", 2), event("enter", 1), event("enter", 30)]
    assert judge.arrivals(payloads) == [("enter", 1), ("leave", 1), ("enter", 1)]


def test_judge_counts_lost_pose_messages() -> None:
    assert judge.lost_poses([b"a", b"b", b"b"], [b"b", b"x"]) == 2


def test_judge_names_missing_and_wrong_states() -> None:
    expected: dict[str, bytes | Mapping[str, object]] = {
        "a": b"ON",
        "b": b"ON",
        "c": {"device": "cpu", "degraded": False},
    }
    retained = {"a": b"OFF", "c": b'{"device": "cpu", "degraded": true, "reason": "x"}'}
    assert judge.wrong_states(expected, retained) == [
        "a is b'OFF', not b'ON'",
        "b is missing",
        "c: degraded is True, not False",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row("x", "X", resumed_s=5.1), "poses returned 5.1 s"),
        (Row("x", "X", returned_s=5.1), "the Edge TPU returned"),
        (Row("x", "X", fallback_s=1.01), "the CPU's first pose"),
        (Row("x", "X", gap_s=0.51), "no pose of another camera for 0.5 s"),
        (Row("x", "X", events=9, events_lost=1), "1 of 9 events lost"),
        (Row("x", "X", states_lost=1), "1 states wrong"),
        (Row("x", "X", survived=False), "not survived"),
    ],
)
def test_judge_every_missed_target_is_a_failure(row: Row, message: str) -> None:
    row.judge()
    assert not row.passed
    assert message in row.failures[0]


def test_judge_row_within_targets_passes() -> None:
    row = Row("x", "A fault", 0.02, resumed_s=4.9, gap_s=0.1, poses_lost=31, events=8)
    row.judge()
    assert row.passed
    assert judge.table([row]).splitlines()[2:] == [
        "| A fault | 0.02 s | 4.9 s | - | 0.10 s | 31 | 0 of 8 | 0 | yes |"
    ]


def test_judge_fault_that_cannot_run_is_reported(tmp_path: Path) -> None:
    def missed(folder: Path, row: Row) -> Row:
        raise WaitTimeoutError("waited in vain")

    def broken(folder: Path, row: Row) -> Row:
        raise KeyError("an error in the suite")

    def unavailable(folder: Path, row: Row) -> Row:
        raise UnavailableError("needs gcc")

    for run, message in ((missed, "waited in vain"), (broken, "an error in the suite")):
        row = suite.run_fault(Fault("x", "X", run), tmp_path)
        assert not row.survived
        assert message in row.failures[0]
    skipped = suite.run_fault(Fault("x", "X", unavailable), tmp_path)
    assert (skipped.skipped, skipped.passed) == ("needs gcc", False)
    assert "skipped" in judge.table([skipped])


def test_chaos_fault_without_network_namespace_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NAMESPACE_VARIABLE, raising=False)
    for name in ("packets-lost", "disk-full"):
        row = suite.run_fault(FAULTS[name], tmp_path)
        assert "namespace" in str(row.skipped)


def test_chaos_command_lists_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in FAULTS)
    assert len(FAULTS) >= 20


def test_mqtt_proxy_withholds_chosen_packets(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, MqttProxy(broker.port) as proxy:
        proxy.forwards = lambda packet: (
            packet.topic != "secret" and packet.kind != PacketKind.PUBACK
        )
        with Observer("127.0.0.1", broker.port) as observer:
            client = paho.Client(CallbackAPIVersion.VERSION2)
            client.connect("127.0.0.1", proxy.port)
            for topic in ("secret", "public"):
                client.publish(topic, b"x" * 300, qos=1)
            wait(lambda: client.loop(0.05) or observer.payloads("public"), "the second message")
            assert observer.payloads("secret") == []
            wait(lambda: client.loop(0.05) or proxy.count(PacketKind.PUBACK, 0.0), "its answer")
        assert [p.topic for p in proxy.seen if p.kind == PacketKind.PUBLISH] == ["secret", "public"]


def test_hanging_folder_blocks_only_its_own_files(tmp_path: Path) -> None:
    folder = HangingFolder(tmp_path)
    environment = {**os.environ, **folder.environment}
    script = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    inside, outside = folder.path / "file", tmp_path / "file"

    def write(path: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", script, str(path), "written"]
        return subprocess.Popen(command, env=environment)

    folder.hang()
    with write(inside) as hangs, write(outside) as other:
        assert other.wait(20) == 0
        assert hangs.poll() is None
        assert not inside.exists()
        folder.recover()
    assert inside.read_text() == outside.read_text() == "written"


def test_chaos_document_has_every_fault() -> None:
    """The table in docs/reliability.md has a row for each fault."""
    document = (ROOT / "docs" / "reliability.md").read_text()
    assert [fault.name for fault in FAULTS.values() if f"| {fault.title} |" not in document] == []


def test_chaos_planted_losses_are_found(tmp_path: Path) -> None:
    """An event and a pose message that did not arrive, and a state that stays wrong."""

    class WrongRig(Rig):
        def retained(self) -> dict[str, bytes]:
            return super().retained() | {TOPICS.status("door"): b"stalled"}

    with WrongRig(tmp_path) as rig:
        topic = TOPICS.event("door")
        wait(lambda: len(rig.observer.payloads(topic)) >= 3, "some events")
        arrivals = rig.observer.arrivals
        second = [a for a in arrivals if a.topic == topic][1]
        pose = next(a for a in arrivals if a.topic == TOPICS.poses("main"))
        arrivals.remove(second)
        arrivals.remove(pose)
        row = rig.evaluate(Row("x", "X"))
    # While the daemon runs, and after its end.
    assert (row.survived, row.events_lost, row.states_lost) == (True, 1, 2)
    assert row.poses_lost >= 1
    assert f"{TOPICS.status('door')} is b'stalled', not b'online'" in row.failures


def test_chaos_daemon_that_died_fails(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.daemon.process.kill()
        rig.daemon.process.wait()
        row = rig.evaluate(Row("x", "X"))
    assert not row.survived
    assert "not survived" in row.failures


def test_chaos_without_fault_loses_nothing(tmp_path: Path) -> None:
    """Otherwise losses of a fault could not be distinguished from those of the suite."""
    with Rig(tmp_path) as rig:
        wait(lambda: len(rig.observer.payloads(TOPICS.event("door"))) >= 3, "some events")
        row = rig.evaluate(Row("x", "X"))
    assert row.passed, row.failures
    # The first ones may be published before the daemon is connected.
    assert row.poses_lost < 0.1 * len(rig.observer.payloads(TOPICS.poses("main")))
    assert row.events >= 4
