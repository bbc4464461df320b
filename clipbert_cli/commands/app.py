"""The `clipbert` command: its subcommands, and the one place where errors become terminal text and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from clipbert_cli.commands.ask import ask
from clipbert_cli.commands.assets import assets_app
from clipbert_cli.commands.completion import VARIABLE, complete
from clipbert_cli.commands.demo import demo
from clipbert_cli.commands.doctor import doctor
from clipbert_cli.commands.download import download
from clipbert_cli.commands.evaluate import evaluate
from clipbert_cli.commands.finetune import PRETRAIN_HELP, finetune
from clipbert_cli.commands.infer import infer
from clipbert_cli.commands.pack import pack
from clipbert_cli.commands.preview import preview
from clipbert_cli.commands.recipes import recipes_app
from clipbert_cli.commands.report import report_page
from clipbert_cli.commands.runs import runs_app
from clipbert_cli.commands.search import search
from clipbert_cli.commands.store import store_app
from clipbert_cli.commands.terminal import drop_output, error, open_streams
from clipbert_cli.commands.usage import refuse_wrong_usage, usage_error
from clipbert_cli.errors import ClipbertError
from clipbert_cli.memory import is_out_of_memory, memory_full
from clipbert_cli.printable import Lines
from clipbert_cli.runtime.process_exit import ignore_interrupts, kept, report, run_and_exit
from clipbert_cli.system_errors import OUT_OF_FILES, advice, reason, remedy, stops_writing, system_error


class ClipbertGroup(TyperGroup):
    """The group of all subcommands. It turns their errors into one message and the documented exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # The messages repeat what was typed, which the parser does not keep.
        ctx.meta["words"] = tuple(args)
        refuse_wrong_usage(self, args)
        return super().parse_args(ctx, args)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except Exception as exc:
            # Wrong usage; or stdout took no help.
            if (known := _terminal_text(exc)) is None:
                raise
            lines, hint, code = known
            error(*lines, hint=hint)
            drop_output()
            raise typer.Exit(code) from exc

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of a pipe (`| head`) has read enough. Without this, Python would report the text that is still
            # in the buffer of stdout as lost when it exits.
            drop_output()
            raise typer.Exit(0) from None
        except (Exception, KeyboardInterrupt) as exc:
            ignore_interrupts()
            known = _terminal_text(exc)
            if known is None and hasattr(exc, "exit_code"):  # an exit of typer
                raise
            if known is None or (ctx.params.get("debug") and isinstance(exc, Exception) and not usage_error(exc)):
                # One of several processes gives its traceback to the launcher, which prints the first one alone.
                if report(f"{type(exc).__name__}: {exc}", hint=None, code=1, unforeseen=True):
                    raise typer.Exit(1) from exc
                raise
            lines, hint, code = known
            if not report(str(lines), hint=hint, code=code):
                error(*lines, hint=hint)
            drop_output()
            raise typer.Exit(code) from exc


def _terminal_text(exc: BaseException) -> tuple[Lines, str | None, int] | None:
    """Return the message's lines, the hint and the exit code of a known error; None for one that nobody foresaw."""
    if known := exc if isinstance(exc, ClipbertError) else usage_error(exc):
        return known.lines, known.hint, known.exit_code
    if isinstance(exc, KeyboardInterrupt):
        message, hint = kept().interrupted("")
        return Lines([message]), hint, 130
    if is_out_of_memory(exc):
        full = memory_full(exc)
        return full.lines, full.hint, full.exit_code
    found = exc if isinstance(exc, OSError) else system_error(exc)
    if found and (found is exc or stops_writing(found) or found.errno in OUT_OF_FILES):
        what = f"{found.filename}: " if found.filename else "writing: " if stops_writing(found) else ""
        return Lines([what + reason(found)]), advice(found) if stops_writing(found) else remedy(found), 1
    return None


def _print_version(wanted: bool) -> None:
    if wanted:
        from clipbert_cli import __version__

        typer.echo(f"clipbert {__version__}")
        raise typer.Exit


# With rich (`rich_markup_mode`) typer keeps the line breaks of docstrings, so that paragraphs break in the middle of
# sentences at any other width, and its frames take a third of 80 columns. The plain help is wrapped to the terminal's
# width, and printing it needs half the time.
app = typer.Typer(
    cls=ClipbertGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find videos by text and answer questions about videos and images, from raw files to a score.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Declare the options that come before the subcommand."""


# The order here is the order of `clipbert --help`.
app.command("download", epilog="Example: clipbert download msrvtt_qa --to $DATA --pack")(download)
app.add_typer(assets_app, name="assets")
app.command("pack", epilog="Example: clipbert pack videos/ vis_db/msrvtt")(pack)
app.add_typer(store_app, name="store")
app.command("preview")(preview)
app.command("pretrain", help=PRETRAIN_HELP)(finetune)
app.command("finetune")(finetune)
app.command("infer", epilog="Example: clipbert infer --run runs/msrvtt_qa --split test -o preds.jsonl")(infer)
app.command("eval", epilog="Example: clipbert eval preds.jsonl --recipe msrvtt_qa --split test")(evaluate)
app.command("report")(report_page)
app.command("ask", epilog='Example: clipbert ask --run runs/msrvtt_qa --video cat.mp4 "what is the cat doing?"')(ask)
app.command("search", epilog='Example: clipbert search clips/ "a dog jumps" --run runs/msrvtt_retrieval')(search)
app.add_typer(runs_app, name="runs")
app.add_typer(recipes_app, name="recipes")
app.command("demo", epilog="Example: clipbert demo --task retrieval --size small my-demo")(demo)
app.command("doctor", epilog="Example: clipbert doctor --json")(doctor)


def main() -> None:
    """Run the command line (the entry point `clipbert`), or complete it for a shell that asks for candidates."""
    open_streams()
    try:
        os.getcwd()
    except FileNotFoundError:
        # Libraries fail without one, each in its own way.
        error("the working folder was removed", hint="cd to another folder")
        sys.exit(1)
    if VARIABLE in os.environ and complete(get_command(app)):
        return
    run_and_exit(app)
