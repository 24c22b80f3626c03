"""The command's entry point: subcommands, ``--version``, and how errors end it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from graphprune import __version__
from graphprune.cli.advise_command import advise
from graphprune.cli.bench_command import bench
from graphprune.cli.compile_command import compile_
from graphprune.cli.inspect_command import inspect
from graphprune.cli.ops_command import ops
from graphprune.cli.plan_command import plan
from graphprune.cli.prune_command import prune
from graphprune.cli.run_command import run
from graphprune.cli.screen import errors
from graphprune.errors import GraphPruneError

EXIT_FAILED = 1

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(inspect)
app.command()(plan)
app.command()(prune)
app.command("compile")(compile_)
app.command()(run)
app.command()(bench)
app.command()(advise)
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
        command.main(None if arguments is None else list(arguments), prog_name="graphprune")
    except GraphPruneError as error:
        errors().print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return EXIT_FAILED
    except SystemExit as end:  # how the parser ends, having said why
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
