"""The command line: ``sd-api`` and ``python -m service``."""

import argparse
import os
import sys
from collections.abc import Sequence

from service import __version__, cli, config
from service.errors import ServiceError

COMMANDS = {
    "serve": (cli.serve, "Answer requests (the default command)."),
    "generate": (cli.generate, "Make pictures without a server."),
    "health": (cli.health, "Ask a running service; exit 0 when it is ready, else 1."),
    "models": (cli.models, "List the models that are installed, and where."),
}


def parser() -> argparse.ArgumentParser:
    """Build the command line from the table of settings and the commands."""
    root = argparse.ArgumentParser(
        prog="sd-api", description="A self-hosted Stable Diffusion REST service."
    )
    root.add_argument("--version", action="version", version=f"sd-api {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (run, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        if name == "generate":
            cli.add_generate_arguments(command)
        config.add_flags(command)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 2 for a wrong setting or argument."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "serve")
    chosen = parser().parse_args(words)
    try:
        settings = config.load(os.environ, vars(chosen))
        return int(chosen.run(settings, chosen))
    except ServiceError as error:
        print(f"sd-api: {error.title}: {error.detail}", file=sys.stderr)  # noqa: T201
        return 2


if __name__ == "__main__":
    sys.exit(main())
