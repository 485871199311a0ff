"""Packages that only an extra of edgepose installs."""

import importlib

from edgepose.errors import EdgeposeError


def require_extra(module: str, extra: str, feature: str) -> None:
    """Raise EdgeposeError with the command to install an extra if its module cannot be imported."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise EdgeposeError(
            f"{feature} needs {module.partition('.')[0]}, which cannot be imported ({error}); "
            f"install it with `pip install 'edgepose[{extra}]'`"
        ) from None
