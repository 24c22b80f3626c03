"""The command's entry point: subcommands, ``--version``, and how errors end it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import click
import typer

from graphprune import __version__
from graphprune.cli.bench_command import bench
from graphprune.cli.compile_command import compile_
from graphprune.cli.inspect_command import inspect
from graphprune.cli.ops_command import ops
from graphprune.cli.prune_command import prune
from graphprune.cli.run_command import run
from graphprune.cli.screen import errors
from graphprune.errors import GraphPruneError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(inspect)
app.command()(prune)
app.command("compile")(compile_)
app.command()(run)
app.command()(bench)
app.command()(ops)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"graphprune {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Prune PyTorch models for real: physically smaller graphs, and kernels that skip zeros.

    MODEL is a file saved by torch.export (.pt2) or package.module:name, where name is a model, or a function
    that returns a model or a tuple (model, args) or (model, args, kwargs).
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    command = typer.main.get_command(app)
    try:
        words = None if arguments is None else list(arguments)
        code = command.main(words, prog_name="graphprune", standalone_mode=False)
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except GraphPruneError as error:
        errors().print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False)
        return EXIT_FAILED
    except (click.Abort, KeyboardInterrupt):
        errors().print("interrupted", style="red")
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0
