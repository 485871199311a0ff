"""Asks Home Assistant for what it knows; run by its own Python, prints JSON."""

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

URL = "http://127.0.0.1:8123"


def requirements() -> list[str]:
    """Return, as lines for pip, what the integrations need that are always loaded, and mqtt."""
    import homeassistant
    from homeassistant import bootstrap

    wanted = {"mqtt", "api", "hassio", "onboarding", "websocket_api"}
    for kind in ("CORE", "LOGGING", "LOGGING_AND_HTTP_DEPS", "FRONTEND", "DEFAULT"):
        wanted |= set(getattr(bootstrap, f"{kind}_INTEGRATIONS", ()))
    seen, lines = {"cloud"}, set()
    components = Path(str(homeassistant.__file__)).parent / "components"
    while wanted - seen:
        seen.add(domain := (wanted - seen).pop())
        manifest = components / domain / "manifest.json"
        if manifest.is_file():
            read = json.loads(manifest.read_text())
            lines |= set(read.get("requirements", []))
            wanted |= set(read.get("dependencies", []))
    return sorted(lines)


class Session:
    """The REST and WebSocket interfaces of Home Assistant, as its own web page uses them."""

    def __init__(self, http: Any, token: str = "") -> None:
        self._http, self._token, self._count = http, token, 0
        self._socket: Any = None

    async def rest(self, path: str, body: object = None, **form: str) -> Any:
        """Return the answer to a GET, or to a POST of `body` or of a form."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        method = "POST" if body is not None or form else "GET"
        request = self._http.request(
            method, URL + path, json=body, data=form or None, headers=headers
        )
        async with request as answer:
            if answer.status >= 400:
                raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def ask(self, kind: str, **more: object) -> Any:
        """Return the answer over the WebSocket."""
        if self._socket is None:
            self._socket = await self._http.ws_connect(f"{URL}/api/websocket", max_msg_size=0)
            await self.next()
            await self._socket.send_json({"type": "auth", "access_token": self._token})
            await self.next()
        self._count += 1
        await self._socket.send_json({"id": self._count, "type": kind, **more})
        while (answer := await self.next()).get("id") != self._count:
            pass
        if not answer["success"]:
            raise RuntimeError(f"{kind}: {answer['error']}")
        return answer["result"]

    async def next(self) -> Any:
        """Return the next message of the WebSocket."""
        return await self._socket.receive_json()


async def onboard(http: Any) -> str:
    """Become the owner as the first visitor of the page does; return a token that lasts."""
    owner = {"name": "o", "username": "o", "password": "o", "client_id": URL, "language": "en"}
    code = (await Session(http).rest("/api/onboarding/users", owner))["auth_code"]
    form = {"grant_type": "authorization_code", "code": code, "client_id": URL}
    session = Session(http, (await Session(http).rest("/auth/token", **form))["access_token"])
    token: str = await session.ask("auth/long_lived_access_token", client_name="tests", lifespan=99)
    return token


async def add_mqtt(session: Session, port: str) -> str:
    """Fill in the forms of the MQTT integration; everything else stays as it is proposed."""

    def filled(fields: list[dict[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {"broker": "127.0.0.1", "port": int(port)}
        for field in fields:
            if field.get("type") == "expandable":
                values[field["name"]] = filled(field["schema"])
            elif field.get("required"):
                off = False if "boolean" in field.get("selector", {}) else "off"
                values.setdefault(field["name"], field.get("default", off))
        return {f["name"]: values[f["name"]] for f in fields if f["name"] in values}

    flow = await session.rest("/api/config/config_entries/flow", {"handler": "mqtt"})
    while flow["type"] != "create_entry":
        if flow.get("errors"):
            raise RuntimeError(f"the form is refused: {flow}")
        menu = {"next_step_id": "broker"}
        answer = menu if flow["type"] == "menu" else filled(flow["data_schema"])
        flow = await session.rest(f"/api/config/config_entries/flow/{flow['flow_id']}", answer)
    return "added"


async def confirm(session: Session) -> None:
    """Keep the address of the web page; otherwise 2026.11 takes it back after five minutes."""
    with suppress(RuntimeError):
        await session.ask("http/config/promote")


async def states_of(session: Session) -> dict[str, dict[str, Any]]:
    """Return every state by entity id."""
    return {state["entity_id"]: state for state in await session.ask("get_states")}


async def entities(session: Session, prefix: str = "") -> list[dict[str, Any]]:
    """Return what a user sees of each MQTT entity whose unique id begins with `prefix`."""
    states = await states_of(session)
    devices = {device["id"]: device for device in await session.ask("config/device_registry/list")}
    areas = {a["area_id"]: a["name"] for a in await session.ask("config/area_registry/list")}
    rows = []
    for entry in await session.ask("config/entity_registry/list"):
        if entry["platform"] == "mqtt" and entry["unique_id"].startswith(prefix):
            state = states.get(entry["entity_id"], {"state": None, "attributes": {}})
            device = devices[entry["device_id"]]
            rows.append(
                {
                    "entity_id": entry["entity_id"],
                    # None if it is disabled.
                    "state": state["state"],
                    "attributes": state["attributes"],
                    "unique_id": entry["unique_id"],
                    "category": entry["entity_category"],
                    "device": device["name"],
                    "area": areas.get(device.get("area_id")),
                    "page": device.get("configuration_url"),
                    "via": devices.get(device.get("via_device_id"), {}).get("name"),
                }
            )
    return sorted(rows, key=lambda row: str(row["entity_id"]))


async def devices(session: Session) -> list[str]:
    """Return the names of all MQTT devices, with entities or without."""
    known = await session.ask("config/device_registry/list")
    return sorted(str(d["name"]) for d in known if "mqtt" in [i[0] for i in d["identifiers"]])


async def wait(session: Session, entity_id: str, wanted: str, seconds: str) -> list[str]:
    """Return the states it went through until it had the `wanted` one, or time was up."""
    seen: list[str] = []
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end and seen[-1:] != [wanted]:
        state = (await states_of(session)).get(entity_id, {"state": "absent", "attributes": {}})
        new = "restored" if state["attributes"].get("restored") else state["state"]
        seen += [new] if seen[-1:] != [new] else []
        await asyncio.sleep(0.05)
    return seen


async def stream(session: Session, entity_id: str) -> None:
    """Print the state of an entity now, and each one that follows, until it is killed."""
    await session.ask("subscribe_events", event_type="state_changed")
    state = (await states_of(session)).get(entity_id, {"state": "absent"})["state"]
    while True:
        print(json.dumps(state), flush=True)
        while True:
            data = (await session.next()).get("event", {}).get("data", {})
            if data.get("entity_id") == entity_id:
                break
        state = (data["new_state"] or {"state": "absent"})["state"]


async def call(session: Session, service: str, entity_id: str, data: str) -> list[Any]:
    """Do with an entity what a user would, such as `switch.turn_off`."""
    path = f"/api/services/{service.replace('.', '/')}"
    done: list[Any] = await session.rest(path, {"entity_id": entity_id, **json.loads(data)})
    return done


async def enable(session: Session, entity_id: str) -> None:
    """Enable an entity that is disabled by default."""
    await session.ask("config/entity_registry/update", entity_id=entity_id, disabled_by=None)


async def valid(session: Session, triggers: str) -> bool:
    """Return whether the triggers of an automation are valid."""
    answer = await session.ask("validate_config", triggers=json.loads(triggers))
    return bool(answer["triggers"]["valid"])


async def ws(session: Session, kind: str) -> Any:
    """Return the answer to any question of the WebSocket that takes no arguments."""
    return await session.ask(kind)


async def main(what: str, *words: str) -> Any:
    """Call the function `what` with the token and its arguments."""
    import aiohttp

    async with aiohttp.ClientSession() as http:
        if what == "onboard":
            return await onboard(http)
        return await globals()[what](Session(http, words[0]), *words[1:])


if sys.argv[1] == "requirements":
    print("\n".join(requirements()))
else:
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
