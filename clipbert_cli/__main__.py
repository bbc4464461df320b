"""`python -m clipbert_cli`, and what the `clipbert` command starts."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line. Ctrl-C during its imports, when there is nothing to undo, ends without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    # Our launcher starts its processes with blocked signals, so that none comes before this line.
    if "CLIPBERT_LAUNCHED" in os.environ:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    from clipbert_cli.commands.app import main as run

    run()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(130)


if __name__ == "__main__":
    main()
