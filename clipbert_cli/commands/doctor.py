"""`clipbert doctor`: what this machine has, what works, and what to do about the rest."""

from __future__ import annotations

from typing import Annotated

import typer

from clipbert_cli.commands import options
from clipbert_cli.commands.terminal import note, print_json, print_result


def doctor(
    online: Annotated[bool, options.option("--online", "Also check that the Hugging Face Hub can be reached.")] = False,
    as_json: options.Json = False,
) -> None:
    """Examine this machine, and try what clipbert needs.

    That is versions, limits, GPUs, decoders, precisions, and processes that talk to each other. Run it first on a
    new machine, and paste its output into a bug report. It prints one line per part as soon as it is known, and at
    the end what is broken or slower than it could be, with what to do. Nothing is written, and without --online
    nothing is sent. The exit code is 1 if something is broken.
    """
    from clipbert_cli.doctor.examine import examine

    findings = []
    for finding in examine(online=online):
        findings.append(finding)
        line = f"{finding.part:17} {finding.value}"
        if as_json:
            note(line)
        else:
            print_result(line)
    is_broken = any(finding.state == "broken" for finding in findings)
    verdicts = [finding.verdict() for finding in findings if finding.state != "ok"]
    if as_json:
        print_json({"is_broken": is_broken, "findings": [finding.fields() for finding in findings]})
    else:
        print_result("", *(sorted(verdicts) or ["ok"]))
    raise typer.Exit(int(is_broken))
