"""The configuration: what may be in it, how it is read, and its manual."""

from edgepose.config.loader import find_config_file, load_config
from edgepose.config.schema import (
    Camera,
    Config,
    Inference,
    Log,
    Model,
    Mqtt,
    Output,
    Pose,
    Presence,
    Smoothing,
    Tls,
    Tracking,
)

__all__ = [
    "Camera",
    "Config",
    "Inference",
    "Log",
    "Model",
    "Mqtt",
    "Output",
    "Pose",
    "Presence",
    "Smoothing",
    "Tls",
    "Tracking",
    "find_config_file",
    "load_config",
]
