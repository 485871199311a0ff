"""The sections about people over time: presence, publishing of poses, and what is made of them."""

from edgepose.config.fields import Live, Milliseconds, Section


class PresenceConfig(Section, frozen=True, kw_only=True):
    """Delays of the presence topic."""

    on_delay_ms: Live[Milliseconds] = 300
    off_delay_ms: Live[Milliseconds] = 1000
