"""The `clipbert` command: its subcommands, and the one place where errors become terminal text and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clipbert_cli.commands.demo import demo
from clipbert_cli.commands.download import download_app
from clipbert_cli.commands.evaluate import evaluate
from clipbert_cli.commands.finetune import PRETRAIN_HELP, finetune
from clipbert_cli.commands.infer import infer
from clipbert_cli.commands.pack import pack_app
from clipbert_cli.commands.recipes import recipes_app
from clipbert_cli.commands.runs import runs_app
from clipbert_cli.errors import ClipbertError
from clipbert_cli.files import OUT_OF_SPACE
from clipbert_cli.runtime.process_exit import report, run_and_exit


class ClipbertGroup(TyperGroup):
    """Turns errors of any subcommand into one message and the documented exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ClipbertError as exc:
            if ctx.params.get("debug"):
                _report_unforeseen(exc)
                raise
            _fail(str(exc), hint=exc.hint, code=exc.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", code=130)
        except BrokenPipeError:
            # The reader of a pipe (`| head`) has what it wanted: leave quietly, and let no buffer complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except RuntimeError as exc:
            if type(exc).__name__ != "OutOfMemoryError" or ctx.params.get("debug"):  # torch's; torch stays unimported
                _report_unforeseen(exc)
                raise
            _fail(
                f"the GPU's memory is full: {str(exc).splitlines()[0]}",
                hint="lower train.batch_size, infer.batch_size or num_clips; raise train.gradient_accumulation_steps",
                code=1,
            )
        except OSError as exc:
            if ctx.params.get("debug"):
                _report_unforeseen(exc)
                raise
            hint = "free some space, or write elsewhere" if exc.errno in OUT_OF_SPACE else None
            _fail(f"{exc.filename or 'writing'}: {exc.strerror or exc}", hint=hint, code=1)
        except Exception as exc:
            _report_unforeseen(exc)
            raise


def _report_unforeseen(exc: Exception) -> None:
    """As one of several processes, give the traceback to the launcher, which shows the first one alone."""
    is_exit = hasattr(exc, "exit_code") and not isinstance(exc, ClipbertError)  # the command line's own way out
    if not is_exit and report(f"{type(exc).__name__}: {exc}", hint=None, code=1, unforeseen=True):
        raise typer.Exit(1) from exc


def _fail(message: str, *, hint: str | None = None, code: int) -> None:
    """Say it here, or, as one of several processes, to the launcher."""
    from clipbert_cli.commands.terminal import error

    if not report(message, hint=hint, code=code):
        error(message, hint=hint)
    raise typer.Exit(code)


app = typer.Typer(
    cls=ClipbertGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find videos by text and answer questions about videos and images, from raw files to a score.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from clipbert_cli import __version__

        typer.echo(f"clipbert {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options before the subcommand."""


app.add_typer(pack_app, name="pack")
app.command("pretrain", help=PRETRAIN_HELP)(finetune)
app.command()(finetune)
app.command()(infer)
app.command("eval")(evaluate)
app.command()(demo)
app.add_typer(recipes_app, name="recipes")
app.add_typer(runs_app, name="runs")
app.add_typer(download_app, name="download")


def main() -> None:
    """Run the command line (the entry point `clipbert`)."""
    run_and_exit(app)
