"""Every error edgepose raises on purpose.

Each one says in a sentence what was expected, what came, where, and what to do, and most can be
caught twice: as `EdgeposeError` and as the builtin that a Python reader expects.
"""


class EdgeposeError(Exception):
    """The base of all errors with a sentence for the user; the CLI ends with `exit_code`."""

    exit_code = 1


class UsageError(EdgeposeError, ValueError):
    """A command line or a source URI that cannot be meant."""

    exit_code = 2


class ConfigError(EdgeposeError, ValueError):
    """One or more mistakes in a configuration, all listed in the text."""

    exit_code = 2


class SourceError(EdgeposeError, OSError):
    """A frame source that cannot be opened, or that stopped delivering."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A file, folder or device that is not there."""


class SourceBusyError(SourceError):
    """A camera that another process holds."""


class SourceStalledError(SourceError, TimeoutError):
    """A live source that is open but delivered no frame in time."""


class ModelError(EdgeposeError):
    """A model that cannot be used."""


class UnknownModelError(ModelError, LookupError):
    """A model name that is not in the manifest."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the sentence as it is (`LookupError` subclasses such as KeyError quote it)."""
        return str(self.args[0])


class ModelFileError(ModelError, OSError):
    """A model file that is missing, truncated or not a TFLite flatbuffer."""


class ModelHashError(ModelFileError):
    """A model file whose bytes are not the ones its manifest names."""


class ModelShapeError(ModelError, ValueError):
    """A model whose tensors do not fit the kind it should be."""


class ConversionError(ModelError):
    """A model that could not be built from its published weights."""


class AcceleratorError(EdgeposeError, RuntimeError):
    """An accelerator or its runtime that is missing or failed."""


class AcceleratorLostError(AcceleratorError):
    """An accelerator that worked and does not answer any more; it may come back."""


class SinkError(EdgeposeError, OSError):
    """A sink that cannot be opened or written."""


class BrokerError(SinkError, ConnectionError):
    """An MQTT broker that refuses, or cannot be reached where it must be."""
