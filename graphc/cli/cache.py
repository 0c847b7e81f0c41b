"""`graphc cache`: what is in the cache of compiled programs, and the ways to empty and check it."""
from __future__ import annotations

import argparse
import time

from graphc.cache import Entry, Folder, folder
from graphc.cli.dump import write
from graphc.cli.load import InputError
from graphc.config import options
from graphc.errors import GraphcError, report

HELP = "the cache of compiled programs: info, list, clear, verify"
DESCRIPTION = """\
Compiled programs are kept for later processes, which load them without compiling anything. The folder is
GRAPHC_CACHE_DIR, or one that the system has for a user's caches; GRAPHC_CACHE_LIMIT bounds its size, and GRAPHC_CACHE=0
turns it off.

info    where it is, and how full
list    the programs, the one that was used last first
clear   remove them all
verify  read them all; the exit code is 1 if one is damaged"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("action", choices=("info", "list", "clear", "verify"))


def command(arguments: argparse.Namespace) -> None:
    """Run `graphc cache`."""
    kept = folder()
    write({"info": _info, "list": _list, "clear": _clear, "verify": _verify}[arguments.action](kept), None)


def _info(kept: Folder) -> str:
    entries = kept.entries()
    total = sum(e.size for e in entries)
    rows = [("folder", str(kept.path)), ("state", "on" if options.cache else "off (GRAPHC_CACHE=0)"),
            ("programs", str(len(entries))), ("size", f"{_bytes(total)} of {_bytes(kept.limit)}"), ("machine", _machine())]
    return "".join(f"{name:<10}{value}\n" for name, value in rows)


def _machine() -> str:
    """What was measured of this machine."""
    from graphc.runtime import machine, threads
    count = threads.num_threads()
    found = machine.measured(count, options.cache_dir)
    return f"{count} {'thread' if count == 1 else 'threads'}: {found or 'not measured'}"


def _list(kept: Folder) -> str:
    lines = [f"{'key':<14}{'size':>10}{'kernels':>9}  {'last used':<18}name"]
    for entry in kept.entries():
        name, kernels = _content(kept, entry)
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        lines.append(f"{entry.key[:12]:<14}{_bytes(entry.size):>10}{kernels:>9}  {used:<18}{name}")
    return "\n".join(lines) + "\n"


def _content(kept: Folder, entry: Entry) -> tuple[str, str]:
    try:
        document, _ = kept.read(entry.key)
    except (OSError, GraphcError):
        return "(damaged)", ""
    kernels = {symbol for p in document.get("programs", ()) for symbol in p["objects"]}
    return str(document.get("name", "")), str(len(kernels)) if "programs" in document else ""


def _clear(kept: Folder) -> str:
    count = kept.clear()
    return f"removed {count} {'file' if count == 1 else 'files'}\n"


def _verify(kept: Folder) -> str:
    entries, wrong = kept.entries(), []
    for entry in entries:
        try:
            kept.read(entry.key)
        except (OSError, GraphcError) as e:
            wrong.append((entry.key[:12], str(e).splitlines()[0]))
    if wrong:
        raise report(InputError, f"{len(wrong)} of {len(entries)} programs cannot be used", wrong,
                     "they will be compiled again when they are needed", "graphc cache clear removes them")
    return f"{len(entries)} {'program is' if len(entries) == 1 else 'programs are'} whole\n"


def _bytes(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
