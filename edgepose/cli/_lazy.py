"""A command group whose subcommands are modules, imported only when they are asked for."""

import importlib
from collections.abc import Mapping
from typing import ClassVar

import click


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when it is asked for.

    Importing all of them would add half a second to every start. `package` holds a module with a
    `command` for each of `subcommands`, which has a line of help for each.
    """

    package: ClassVar[str]
    subcommands: ClassVar[Mapping[str, str]]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, as they are to be listed."""
        return list(self.subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a subcommand; None for a name that is none."""
        if cmd_name not in self.subcommands:
            return None
        command = importlib.import_module(f"{self.package}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list for the help, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.subcommands.items()))
