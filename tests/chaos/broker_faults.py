"""Faults of the broker: killed, frozen, unreachable, slow or refusing the login."""

import socket
import time
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.chaos.judge import Row
from tests.chaos.observer import wait
from tests.chaos.proxy import TcpProxy
from tests.chaos.registry import UnavailableError, fault
from tests.chaos.rig import CLIENT_ID, OBSERVER_LOGIN, Broker, Rig, has_own_network, run
from tests.mosquitto import PASSWORD, USERNAME

LOST: Final = "trying again, at least every"
"""What the daemon logs when the connection is lost."""
_AWAY_S: Final = 12.0
"""Long enough for the pauses between attempts to reach their maximum."""
_HERE_WH: Final = ("10.77.0.1/30", "10.77.1.1/30")
_THERE: Final = ("10.77.0.2", "10.77.1.2")


@fault("broker-killed", "Broker: killed, restarted without its state")
def _killed(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    # The daemon connects last, so that the observer misses nothing.
    with TcpProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        killed_s = time.monotonic()
        proxy.block()
        # What the broker has acknowledged must not be lost with it.
        rig.observer.drain()
        broker.kill()
        row.detected_s = rig.daemon.wait_for_log(LOST) - killed_s
        time.sleep(_AWAY_S)
        broker.start()
        wait(lambda: rig.observer.subscribed, "the observer to be subscribed")
        _resumes(rig, row, proxy.unblock())
        return rig.evaluate(row)


@fault("broker-restarted", "Broker: restarted with its state")
def _restarted(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker", persistent=True)
    with Rig(folder, broker) as rig:
        stopped_s = time.monotonic()
        broker.stop()
        row.detected_s = rig.daemon.wait_for_log(LOST) - stopped_s
        time.sleep(_AWAY_S / 4)
        broker.start()
        _resumes(rig, row, time.monotonic())
        return rig.evaluate(row)


@fault("broker-frozen", "Broker: frozen, with all connections open")
def _frozen(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with Rig(folder, broker) as rig:
        frozen_s = time.monotonic()
        broker.freeze()
        try:
            row.detected_s = rig.daemon.wait_for_log(LOST) - frozen_s
            time.sleep(2.0)
        finally:
            broker.thaw()
        _resumes(rig, row, time.monotonic())
        return rig.evaluate(row)


class _RemoteRig(Rig):
    """A broker in its own network namespace, with a link each for the daemon and the observer."""

    def connect(self) -> None:
        for number, (here, there) in enumerate(zip(_HERE_WH, _THERE, strict=True)):
            near, far = f"near{number}", f"far{number}"
            process_id = str(self.broker.process_id)
            run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
            run("ip", "link", "set", far, "netns", process_id)
            run("ip", "address", "add", here, "dev", near)
            run("ip", "link", "set", near, "up")
            self.run_there("ip", "address", "add", f"{there}/30", "dev", far)
            self.run_there("ip", "link", "set", far, "up")

    def run_there(self, *command: str) -> None:
        """Run a program in the broker's network namespace."""
        run("nsenter", "--target", str(self.broker.process_id), "--net", "--", *command)


@fault("packets-lost", "Broker: every packet to and from it is lost")
def _packets_lost(folder: Path, row: Row) -> Row:
    if not has_own_network():
        raise UnavailableError("needs a network namespace (unshare, ip, nsenter)")
    broker = Broker(folder / "broker", own_network=True)
    with _RemoteRig(folder, broker, host=_THERE[0], observer_host=_THERE[1]) as rig:
        rig.run_there("ip", "link", "set", "far0", "down")
        row.detected_s = -time.monotonic() + rig.daemon.wait_for_log(LOST)
        time.sleep(_AWAY_S / 2)
        rig.run_there("ip", "link", "set", "far0", "up")
        _resumes(rig, row, time.monotonic())
        return rig.evaluate(row)


@fault("broker-slow", "Broker: accepts a tenth of the data for 15 s")
def _slow(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with TcpProxy(broker.port) as proxy, Rig(folder, broker, port=proxy.port) as rig:
        since_s = time.monotonic()
        proxy.bytes_per_s = 2500.0
        time.sleep(15.0)
        proxy.bytes_per_s = None
        _resumes(rig, row, time.monotonic())
        row.remarks.append(f"longest time without poses {rig.longest_gap_s(since_s):.1f} s")
        return rig.evaluate(row)


@fault("password-changed", "Broker: the password is changed, then changed back")
def _password(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker", password=True)
    mqtt = {"username": USERNAME, "password": PASSWORD}
    with (
        TcpProxy(broker.port) as proxy,
        Rig(folder, broker, port=proxy.port, mqtt=mqtt, user=OBSERVER_LOGIN) as rig,
    ):
        broker.set_password(USERNAME, "another one")
        broker.reload()
        # With some versions existing connections stay; the next one needs the new password.
        proxy.block()
        changed_s = proxy.unblock()
        row.detected_s = rig.daemon.wait_for_log("refuses the login") - changed_s
        time.sleep(_AWAY_S)
        broker.set_password(USERNAME, PASSWORD)
        broker.reload()
        _resumes(rig, row, time.monotonic())
        return rig.evaluate(row)


@fault("client-id-taken", "Broker: another client takes the client id, three times")
def _taken(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with Rig(folder, broker) as rig:
        for _ in range(3):
            intruder = paho.Client(
                CallbackAPIVersion.VERSION2, CLIENT_ID, protocol=MQTTProtocolVersion.MQTTv5
            )
            taken_s = time.monotonic()
            intruder.connect("127.0.0.1", broker.port)
            # It stays connected until the daemon takes the id back.
            while intruder.loop(0.05) == paho.MQTT_ERR_SUCCESS:
                pass
            detected_s = rig.daemon.wait_for_log(LOST) - taken_s
            row.detected_s = row.detected_s or detected_s
            resumed_s = rig.next_pose(taken_s + 0.2) - taken_s
            row.resumed_s = max(row.resumed_s or 0.0, resumed_s)
            time.sleep(0.5)
        return rig.evaluate(row)


@fault("subscriber-slow", "Subscriber: one that never reads")
def _subscriber(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with Rig(folder, broker) as rig:
        with socket.create_connection(("127.0.0.1", broker.port)) as idle:
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            since_s = time.monotonic()
            # MQTT 3.1.1: CONNECT without a keepalive, and SUBSCRIBE to everything with QoS 1.
            idle.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04deaf")
            idle.sendall(b"\x82\x06\x00\x01\x00\x01#\x01")
            time.sleep(12.0)
            row.gap_s = rig.longest_gap_s(since_s)
        return rig.evaluate(row)


def _resumes(rig: Rig, row: Row, since_s: float) -> None:
    row.resumed_s = rig.next_pose(since_s) - since_s
