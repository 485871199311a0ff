"""The exceptions of edgepose.

A message is one line: what was expected, what came, where, and what to do. Most classes are also
subclasses of the builtin exception for the same kind of failure.
"""


class EdgeposeError(Exception):
    """Base class; the message is for the user, and the CLI exits with `exit_code`."""

    exit_code = 1


class UsageError(EdgeposeError, ValueError):
    """An invalid command line or source URI."""

    exit_code = 2


class ConfigError(EdgeposeError, ValueError):
    """An invalid configuration; the message lists all errors."""

    exit_code = 2


class SecretFileError(EdgeposeError, OSError):
    """A password, certificate or key file that cannot be used; it may be there or right later."""


class AlreadyRunningError(EdgeposeError):
    """A node that another process runs on this machine."""


class SourceError(EdgeposeError, OSError):
    """A frame source that cannot be opened, or that stopped delivering frames."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A file, folder or device that does not exist."""


class SourceBusyError(SourceError):
    """A camera that another process has open."""


class SourceLoginError(SourceError):
    """A camera that refuses the user or the password."""


class SourceStalledError(SourceError, TimeoutError):
    """A live source that is open but delivered no frame in time."""


class ModelError(EdgeposeError):
    """A model that cannot be used."""


class UnknownModelError(ModelError, LookupError):
    """A model name that is not in the manifest."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the message unquoted; subclasses of `LookupError` such as KeyError quote it."""
        return str(self.args[0])


class ModelFileError(ModelError, OSError):
    """A model file that is missing, truncated or not a TFLite flatbuffer."""


class ModelHashError(ModelFileError):
    """A model file whose SHA-256 differs from that of the manifest."""


class ModelShapeError(ModelError, ValueError):
    """A model whose tensors do not fit its kind."""


class ConversionError(ModelError):
    """A model that could not be built from its published weights."""


class AcceleratorError(EdgeposeError, RuntimeError):
    """An accelerator or a runtime that is missing or failed."""


class AcceleratorLostError(AcceleratorError):
    """An accelerator that stopped responding and may return."""


class SinkError(EdgeposeError, OSError):
    """A sink that cannot be opened or written."""


class BrokerError(SinkError, ConnectionError):
    """An MQTT broker that rejects the connection or cannot be reached."""
