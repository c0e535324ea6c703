"""The command line: ``sd-api`` and ``python -m service``."""

import argparse
import os
import sys
from collections.abc import Sequence

from service import __version__
from service.cli import completion, exits, generate, jobs, models, serve
from service.cli.terminal import forgiving, open_closed, print_error
from service.config import loading
from service.errors import ServiceError
from service.telemetry import stderr

COMMANDS = {
    "serve": (serve.serve, "Start the HTTP service (the default command)."),
    "generate": (generate.generate, "Make images without a server."),
    "health": (
        serve.health,
        "Print the health of a running service; exit 0 when it is ready, else 1.",
    ),
    "models": (models.models, "List, fetch, check and remove models."),
    "jobs": (jobs.jobs, "Remove what is kept for an API key."),
    "completion": (
        completion.completion,
        "Print a script that completes commands and options in a shell.",
    ),
}


def parser() -> argparse.ArgumentParser:
    """Build the command line from the table of settings and the commands."""
    root = argparse.ArgumentParser(
        prog="sd-api",
        description="A self-hosted Stable Diffusion REST service.",
        epilog=exits.summary(),
    )
    root.add_argument("--version", action="version", version=f"sd-api {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    made: dict[str, argparse.ArgumentParser] = {}
    for name, (run, text) in COMMANDS.items():
        command = made[name] = commands.add_parser(
            name, help=text, description=text, epilog=exits.summary(), allow_abbrev=False
        )
        command.set_defaults(run=run)
        if name == "generate":
            generate.add_generate_arguments(command)
        if name == "models":
            models.add_models_arguments(command)
        if name == "jobs":
            jobs.add_jobs_arguments(command)
        if name == "completion":
            completion.add_completion_arguments(command, root, made)
        loading.add_flags(command)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, one of those that ``--help`` explains."""
    open_closed()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "serve")
    chosen = parser().parse_args(words)
    # A service serves on without a reader of its log; any other command waits, as shells expect.
    with stderr.queued() if chosen.run is serve.serve else forgiving():
        return _run(chosen)


def _run(chosen: argparse.Namespace) -> int:
    try:
        settings = loading.load(os.environ, vars(chosen))
        return int(chosen.run(settings, chosen))
    except ServiceError as error:
        print_error(f"{error.title}: {error.detail}")
        return exits.code(error)
    except KeyboardInterrupt:
        print_error("interrupted.")
        return exits.Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
