"""The configuration: its schema, how it is read, and its reference."""

from edgepose.config.loader import find_config_file, load_config
from edgepose.config.schema import CameraConfig, Config, ModelConfig, SmoothingConfig

__all__ = [
    "CameraConfig",
    "Config",
    "ModelConfig",
    "SmoothingConfig",
    "find_config_file",
    "load_config",
]
