"""A process's memory, and which process listens on a port.

Linux says both in /proc; elsewhere ``ps`` gives the memory, and the process must be named.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # include/net/tcp_states.h


def own_resident() -> int | None:
    """Return the bytes of memory that this process holds; None where the system does not say."""
    return resident(os.getpid())


def resident(pid: int) -> int | None:
    """Return the bytes of memory that a process holds (its resident set), or None."""
    if sys.platform == "linux":
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    elif sys.platform == "win32":
        return None
    else:
        command = ["ps", "-o", "rss=", "-p", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.match(r"\s*(\d+)", done.stdout)
    return int(found[1]) * 1024 if found else None


def listener(port: int, proc: Path = Path("/proc")) -> int | None:
    """Return the id of the process that listens on a local TCP port.

    None where the system does not say, or the process is another user's.
    """
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    links = proc.glob("[0-9]*/fd/*") if sockets else ()
    return next((int(link.parts[-3]) for link in links if _target(link) in sockets), None)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # it has ended, or is not ours to look at
        return ""


def _inodes(port: int, proc: Path) -> Iterator[str]:
    """Yield the sockets that listen: columns ``local_address``, ``st`` and ``inode`` of net/tcp."""
    for table in (proc / "net" / "tcp", proc / "net" / "tcp6"):
        for line in table.read_text("ascii").splitlines()[1:] if table.exists() else ():
            columns = line.split()
            if int(columns[1].rpartition(":")[2], 16) == port and columns[3] == LISTENING:
                yield columns[9]
