"""Prints where the nose of each person is."""

import json

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage


def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
    frame = json.loads(message.payload)
    for pose in frame["poses"]:
        nose = pose["keypoints"][0]
        print(frame["node"], frame["camera"], pose["id"], nose and nose[:2], flush=True)


client = Client(CallbackAPIVersion.VERSION2)
client.on_message = on_message
client.on_connect = lambda *_: client.subscribe("edgepose/+/+/poses")
client.connect("127.0.0.1", 1883)
client.loop_forever()
