"""The section about Home Assistant."""

from edgepose.config.fields import BaseTopic, Live, NeedsRestart, Printable, Section
from edgepose.config.values import Boolean


class HomeAssistantConfig(Section, frozen=True, kw_only=True):
    """Discovery of the node over MQTT."""

    enabled: Live[Boolean] = True
    discovery_prefix: NeedsRestart[BaseTopic] = "homeassistant"
    name: Live[Printable | None] = None
    area: Live[Printable | None] = None
