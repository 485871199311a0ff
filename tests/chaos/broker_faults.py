"""The broker dies, freezes, refuses, is out of reach or listens slowly."""

import socket
import time
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.chaos.gate import Gate
from tests.chaos.judge import Row
from tests.chaos.observer import wait
from tests.chaos.registry import NotHereError, fault
from tests.chaos.stage import CLIENT_ID, WATCHER, Broker, Stage, own_network, run
from tests.mosquitto import PASSWORD, USERNAME

LOST: Final = "trying again, at least every"
"""What the daemon logs when it has no connection any more."""
_AWAY_S: Final = 12.0
"""Long enough for the pauses between the tries to have become as long as they get."""
_HERE_WH: Final = ("10.77.0.1/30", "10.77.1.1/30")
_THERE: Final = ("10.77.0.2", "10.77.1.2")


@fault("broker-killed", "Broker: killed, and comes back knowing nothing")
def _killed(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    # The daemon gets there last, so that the observer misses nothing.
    with Gate(broker.port) as gate, Stage(folder, broker, port=gate.port) as stage:
        killed_s = time.monotonic()
        broker.kill()
        gate.shut()
        row.noticed_s = stage.life.wait_for_log(LOST) - killed_s
        time.sleep(_AWAY_S)
        broker.start()
        wait(lambda: stage.observer.subscribed, "the observer to be subscribed")
        _resumes(stage, row, gate.open())
        return stage.judged(row)


@fault("broker-restarted", "Broker: stopped and started, with what it knew")
def _restarted(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker", persistent=True)
    with Stage(folder, broker) as stage:
        stopped_s = time.monotonic()
        broker.stop()
        row.noticed_s = stage.life.wait_for_log(LOST) - stopped_s
        time.sleep(_AWAY_S / 4)
        broker.start()
        _resumes(stage, row, time.monotonic())
        return stage.judged(row)


@fault("broker-frozen", "Broker: frozen, with all connections open")
def _frozen(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with Stage(folder, broker) as stage:
        frozen_s = time.monotonic()
        broker.freeze()
        try:
            row.noticed_s = stage.life.wait_for_log(LOST) - frozen_s
            time.sleep(2.0)
        finally:
            broker.thaw()
        _resumes(stage, row, time.monotonic())
        return stage.judged(row)


class _FarStage(Stage):
    """A broker on a network of its own, behind one cable for the daemon and one for the rest."""

    def connect(self) -> None:
        for number, (here, there) in enumerate(zip(_HERE_WH, _THERE, strict=True)):
            near, far = f"near{number}", f"far{number}"
            process_id = str(self.broker.process_id)
            run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
            run("ip", "link", "set", far, "netns", process_id)
            run("ip", "address", "add", here, "dev", near)
            run("ip", "link", "set", near, "up")
            self.there("ip", "address", "add", f"{there}/30", "dev", far)
            self.there("ip", "link", "set", far, "up")

    def there(self, *command: str) -> None:
        """Run a program on the broker's network."""
        run("nsenter", "--target", str(self.broker.process_id), "--net", "--", *command)


@fault("packets-lost", "Broker: every packet to and from it is lost")
def _packets_lost(folder: Path, row: Row) -> Row:
    if not own_network():
        raise NotHereError("needs a network namespace (unshare, ip, nsenter)")
    broker = Broker(folder / "broker", somewhere_else=True)
    with _FarStage(folder, broker, host=_THERE[0], watch_host=_THERE[1]) as stage:
        stage.there("ip", "link", "set", "far0", "down")
        row.noticed_s = -time.monotonic() + stage.life.wait_for_log(LOST)
        time.sleep(_AWAY_S / 2)
        stage.there("ip", "link", "set", "far0", "up")
        _resumes(stage, row, time.monotonic())
        return stage.judged(row)


@fault("link-slow", "Broker: takes a tenth of what is sent for 15 s")
def _slow(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with Gate(broker.port) as gate, Stage(folder, broker, port=gate.port) as stage:
        since_s = time.monotonic()
        gate.bytes_per_s = 2500.0
        time.sleep(15.0)
        gate.bytes_per_s = None
        _resumes(stage, row, time.monotonic())
        row.remarks.append(f"longest time without poses {stage.longest_gap_s(since_s):.1f} s")
        return stage.judged(row)


@fault("password-changed", "Broker: the password is changed, then changed back")
def _password(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker", password=True)
    mqtt = {"username": USERNAME, "password": PASSWORD}
    with (
        Gate(broker.port) as gate,
        Stage(folder, broker, port=gate.port, mqtt=mqtt, user=WATCHER) as stage,
    ):
        broker.set_password(USERNAME, "another one")
        broker.reload()
        # Whoever is connected may stay; the next connection asks.
        gate.shut()
        changed_s = gate.open()
        row.noticed_s = stage.life.wait_for_log("refuses the login") - changed_s
        time.sleep(_AWAY_S)
        broker.set_password(USERNAME, PASSWORD)
        broker.reload()
        _resumes(stage, row, time.monotonic())
        return stage.judged(row)


@fault("client-id-taken", "Broker: another client takes the client id, three times")
def _taken(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with Stage(folder, broker) as stage:
        for _ in range(3):
            intruder = paho.Client(
                CallbackAPIVersion.VERSION2, CLIENT_ID, protocol=MQTTProtocolVersion.MQTTv5
            )
            taken_s = time.monotonic()
            intruder.connect("127.0.0.1", broker.port)
            # It stays until the daemon throws it out.
            while intruder.loop(0.05) == paho.MQTT_ERR_SUCCESS:
                pass
            noticed_s = stage.life.wait_for_log(LOST) - taken_s
            row.noticed_s = row.noticed_s or noticed_s
            resumed_s = stage.next_pose(taken_s + 0.2) - taken_s
            row.resumed_s = max(row.resumed_s or 0.0, resumed_s)
            time.sleep(0.5)
        return stage.judged(row)


@fault("subscriber-slow", "Subscriber: one that reads nothing of all it subscribed to")
def _subscriber(folder: Path, row: Row) -> Row:
    broker = Broker(folder / "broker")
    with Stage(folder, broker) as stage:
        with socket.create_connection(("127.0.0.1", broker.port)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            since_s = time.monotonic()
            # MQTT 3.1.1: CONNECT without a keepalive, and SUBSCRIBE to everything with QoS 1.
            deaf.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04deaf")
            deaf.sendall(b"\x82\x06\x00\x01\x00\x01#\x01")
            time.sleep(12.0)
            gap_s = stage.longest_gap_s(since_s)
        row.remarks.append(f"longest time without poses {gap_s:.2f} s")
        if gap_s > 1.0:
            row.failures.append(f"no poses for {gap_s:.1f} s")
        return stage.judged(row)


def _resumes(stage: Stage, row: Row, since_s: float) -> None:
    row.resumed_s = stage.next_pose(since_s) - since_s
