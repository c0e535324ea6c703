"""The command line: ``sd-api`` and ``python -m service``."""

import argparse
import os
import sys
from collections.abc import Sequence

from service import __version__, cli, cli_generate, cli_models, config, exits
from service.errors import ServiceError
from service.terminal import complain

COMMANDS = {
    "serve": (cli.serve, "Answer requests (the default command)."),
    "generate": (cli_generate.generate, "Make pictures without a server."),
    "health": (cli.health, "Ask a running service; exit 0 when it is ready, else 1."),
    "models": (cli_models.models, "List, fetch, check and remove models."),
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
    for name, (run, text) in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=text, epilog=exits.summary(), allow_abbrev=False
        )
        command.set_defaults(run=run)
        if name == "generate":
            cli_generate.add_generate_arguments(command)
        if name == "models":
            cli_models.add_models_arguments(command)
        config.add_flags(command)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, one of those that ``--help`` explains."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "serve")
    chosen = parser().parse_args(words)
    try:
        settings = config.load(os.environ, vars(chosen))
        return int(chosen.run(settings, chosen))
    except ServiceError as error:
        complain(f"{error.title}: {error.detail}")
        return exits.code(error)
    except KeyboardInterrupt:
        complain("interrupted.")
        return exits.Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
