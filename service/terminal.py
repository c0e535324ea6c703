"""Lines for whoever typed the command, and the exit codes that go with them."""

import os
import sys


def show(text: str) -> int:
    """Print a command's result; return 0, or 1 when it cannot be written.

    A reader that has seen enough, as in ``sd-api models | head -1``, is no failure.
    """
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        return complain(f"the output cannot be written ({error.strerror}).")
    return 0


def complain(text: str) -> int:
    """Print one line about what went wrong; return 1, the exit code of a failure."""
    # One line whatever is in it: names of files and models come from others.
    line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    print(f"sd-api: {line}", file=sys.stderr)  # noqa: T201
    return 1


def _discard_output() -> None:
    # What is still in the buffer is written once more when Python ends, and would fail again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
