"""The command `graphc`: dump, viz, bench and cache. Data goes to stdout, messages to stderr.

Exit codes: 0 all is well; 1 the input's fault; 2 the command line's; 3 graphc's own.
"""
from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from graphc.errors import GraphcError

SIGINT_CODE = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: sys.argv) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    script_arguments: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, script_arguments = words[:at], words[at + 1:]
    try:
        arguments = _parser().parse_args(words)
    except SystemExit as e:  # argparse has printed its message
        return e.code if isinstance(e.code, int) else 2
    arguments.script_arguments = script_arguments
    callers = _callers()
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `graphc dump ... | head`: the reader has all that it wanted
        _silence_stdout()
    except KeyboardInterrupt:
        print("graphc: interrupted", file=sys.stderr)
        return SIGINT_CODE
    except (GraphcError, OSError) as e:
        if arguments.traceback:
            traceback.print_exc()
        print(_message(e, callers), file=sys.stderr)
        return 1
    except Exception as e:
        if arguments.traceback:
            traceback.print_exc()
        print(f"graphc: internal error: {type(e).__name__}: {e}", file=sys.stderr)
        if not arguments.traceback:
            print("    hint: --traceback shows where; please report it", file=sys.stderr)
        return 3
    return 0


def _parser() -> argparse.ArgumentParser:
    from graphc import __version__
    from graphc.cli import bench, cache, dump, viz
    parser = argparse.ArgumentParser("graphc", description="Shows and times what graphc makes of a graph.")
    parser.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (dump, viz, bench, cache):
        name = module.__name__.rpartition(".")[2]
        is_for_files = module is not cache
        command = commands.add_parser(
            name, help=module.HELP, description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="What follows `--` is passed on to the script. `graphc dump --help` says which part of it runs."
            if is_for_files else None)
        if is_for_files:
            command.add_argument("target", metavar="FILE[:NAME]",
                                 help="a Python script that builds a graph, or a dumped text; NAME: a tensor, operation or "
                                      "a variable of the script (several with commas); without it: all that nothing else "
                                      "needs, but initialisers")
        module.add_arguments(command)
        command.add_argument("--traceback", action="store_true", help="show Python's traceback with an error")
        command.set_defaults(command=module.command)
    return parser


def _callers() -> set[str]:
    """The files of the frames that called `main`: no error is on their lines."""
    files = set()
    frame = sys._getframe(1)
    while frame is not None:
        files.add(frame.f_code.co_filename)
        frame = frame.f_back  # type: ignore[assignment]
    return files


def _message(error: BaseException, callers: set[str]) -> str:
    """An error in graphc's layout, without an "in file:line" that is only where the command was started."""
    text = str(error)
    if isinstance(error, GraphcError):
        location = getattr(error, "location", None)
        if location is not None and location.file in callers:
            text = text.removesuffix(f"\n  in {location}")
        return f"{type(error).__name__}: {text}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"InputError: {error.filename}: {error.strerror}"
    return f"InputError: {text}"


def _silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of failing on the closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        pass
    finally:
        os.close(nowhere)
