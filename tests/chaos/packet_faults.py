"""Faults of what a broker answers, ends, limits or passes on."""

import time
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.chaos.judge import Row
from tests.chaos.observer import wait
from tests.chaos.packets import MqttProxy, PacketKind, end_connection
from tests.chaos.proxy import TcpProxy
from tests.chaos.registry import fault
from tests.chaos.rig import TOPICS, Broker, Rig

_NOTICE_S: Final = 25.0
"""How soon a missing answer is noticed at the latest."""
_PACKET_LIMIT: Final = 2000
"""Room for a pose message and no room for `info`."""
_HUGE_BYTES: Final = 250_000_000
_MEMORY_LIMIT_KB: Final = 20_000
_FLAPS: Final = 8
_UP_S: Final = 6.0


@fault("broker-flaps", f"Broker: killed {_FLAPS} times, each time after {_UP_S:.0f} s")
def _flaps(folder: Path, row: Row) -> Row:
    """It is not taken for a second client: poses return as soon as after the first time."""
    broker = Broker(folder / "broker")
    with TcpProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        for _ in range(_FLAPS):
            proxy.block()
            # What the broker has acknowledged must not be lost with it.
            rig.observer.drain()
            broker.kill()
            time.sleep(1.0)
            broker.start()
            wait(lambda: rig.observer.subscribed, "the observer to be subscribed")
            opened_s = proxy.unblock()
            resumed_s = rig.next_pose(opened_s) - opened_s
            row.resumed_s = max(row.resumed_s or 0.0, resumed_s)
            time.sleep(max(0.0, opened_s + _UP_S - time.monotonic()))
        return rig.evaluate(row)


@fault("no-suback", "Broker: never answers SUBSCRIBE, then is restarted")
def _no_suback(folder: Path, row: Row) -> Row:
    """It is noticed, since commands would not arrive, and commands work afterwards."""
    broker = Broker(folder / "broker")
    with MqttProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        proxy.forwards = lambda packet: packet.kind != PacketKind.SUBACK
        proxy.block()
        silent_s = proxy.unblock()
        noticed_s = wait(
            lambda: proxy.count(PacketKind.SUBSCRIBE, silent_s, b"/enabled/set") > 1,
            "another subscription to commands",
            _NOTICE_S,
        )
        row.detected_s = noticed_s - silent_s
        row.resumed_s = _answers_again(proxy, rig)
        rig.switch("door", b"OFF")
        rig.switch("door", b"ON")
        return rig.evaluate(row)


@fault("no-puback", "Broker: acknowledges no message for 30 s, then is restarted")
def _no_puback(folder: Path, row: Row) -> Row:
    """It is noticed, poses go on, and nothing is lost afterwards."""
    broker = Broker(folder / "broker")
    with MqttProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        proxy.forwards = lambda packet: packet.kind != PacketKind.PUBACK
        silent_s = time.monotonic()
        noticed_s = wait(
            lambda: proxy.count(PacketKind.CONNECT, silent_s), "another connection", _NOTICE_S
        )
        row.detected_s = noticed_s - silent_s
        time.sleep(max(0.0, silent_s + 30.0 - time.monotonic()))
        row.resumed_s = _answers_again(proxy, rig)
        return rig.evaluate(row)


@fault("ends-at-event", "Broker: ends the connection at every event for 40 s")
def _ends_at_event(folder: Path, row: Row) -> Row:
    """Its topic is logged, everything but events goes on, and those wait in the store."""
    broker = Broker(folder / "broker")
    with MqttProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        proxy.forwards = lambda packet: (
            not (packet.outward and packet.topic.endswith("/event")) or end_connection(packet)
        )
        since_s = time.monotonic()
        row.detected_s = rig.daemon.wait_for_log("/event", patience_s=40.0) - since_s
        time.sleep(max(0.0, since_s + 40.0 - time.monotonic()))
        late_s = since_s + 25.0
        gap_s = rig.longest_gap_s(late_s)
        row.remarks.append(f"longest time without poses in the last 15 s {gap_s:.1f} s")
        if gap_s > 5.0:
            row.failures.append(f"no poses for {gap_s:.1f} s")
        proxy.forwards = lambda _: True
        # What was put aside is tried again after ten minutes, or by the next run.
        rig.daemon.stop()
        row.resumed_s = rig.next_pose(rig.start().started_s) - rig.daemon.started_s
        return rig.evaluate(row)


@fault("packet-limit", f"Broker: takes no message above {_PACKET_LIMIT} bytes")
def _packet_limit(folder: Path, row: Row) -> Row:
    """Only `info`, which is larger, is left out."""
    broker = Broker(folder / "broker", settings=[f"max_packet_size {_PACKET_LIMIT}"])
    with Rig(folder, broker) as rig:
        since_s = time.monotonic()
        row.detected_s = rig.daemon.wait_for_log(TOPICS.info) - rig.daemon.started_s
        time.sleep(8.0)
        row.gap_s = rig.longest_gap_s(since_s)
        return rig.evaluate(row, without=[TOPICS.info])


@fault("command-huge", f"Broker: passes on a command of {_HUGE_BYTES / 1e6:.0f} MB (MQTT 3.1.1)")
def _command_huge(folder: Path, row: Row) -> Row:
    """It is refused before it takes memory, also when the broker sends it again."""
    broker = Broker(folder / "broker")
    # The other models of `threads: auto` would count.
    settings = {"inference": {"threads": 1}}
    with Rig(folder, broker, mqtt={"protocol": "3.1.1"}, settings=settings) as rig:
        rig.daemon.peak_memory_kb()
        before_kb = rig.daemon.memory_kb()
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        message = client.publish(TOPICS.command("main", "enabled"), bytes(_HUGE_BYTES), 1)
        message.wait_for_publish(60)
        client.disconnect()
        client.loop_stop()
        sent_s = time.monotonic()
        row.resumed_s = rig.next_pose(sent_s) - sent_s
        time.sleep(8.0)
        back_s = time.monotonic()
        rig.next_pose(back_s, patience_s=5.0)
        more_kb = rig.daemon.peak_memory_kb() - before_kb
        row.remarks.append(f"{more_kb / 1024:.1f} MB more resident memory at most")
        if more_kb > _MEMORY_LIMIT_KB:
            row.failures.append(f"memory rose by {more_kb / 1024:.0f} MB")
        return rig.evaluate(row)


@fault("command-while-away", "Broker: a command comes while the daemon is not connected")
def _command_while_away(folder: Path, row: Row) -> Row:
    """A camera that was switched off meanwhile closes with the next connection."""
    broker = Broker(folder / "broker")
    with TcpProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        proxy.block()
        time.sleep(2.0)
        broker.publish(TOPICS.command("door", "enabled"), b"OFF")
        opened_s = proxy.unblock()
        row.resumed_s = rig.next_pose(opened_s) - opened_s
        enabled = rig.observer.wait_for(
            TOPICS.enabled("door"), b"OFF".__eq__, after_s=opened_s, patience_s=10.0
        )
        row.detected_s = enabled.at_s - opened_s
        rig.switch("door", b"ON")
        return rig.evaluate(row)


def _answers_again(proxy: MqttProxy, rig: Rig) -> float:
    """Answer again after a restart of the broker; return how many seconds until the next pose."""
    proxy.block()
    proxy.forwards = lambda _: True
    opened_s = proxy.unblock()
    return rig.next_pose(opened_s) - opened_s
