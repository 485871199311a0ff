"""`edgepose benchmark`: how fast and how accurate models are on this machine."""

from edgepose.cli.benchmark._group import command

__all__ = ["command"]
