"""What a process is called and whose it is, for tables."""

from __future__ import annotations

from corten.records import Record


class Process(Record):
    """A process. uid: its effective user id, None if it has ended meanwhile; command: its command line, of a kernel
    thread its name, empty if it has ended meanwhile.
    """

    pid: int
    uid: int | None
    command: str

    @property
    def user(self) -> str | None:
        """The user's name on this machine, or the number; None if unknown."""
        if self.uid is None:
            return None
        import pwd

        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


def describe(pid: int) -> Process:
    """Read what a process is called; everything unknown if it has ended."""
    uid, name = None, ""
    try:
        with open(f"/proc/{pid}/status", errors="surrogateescape") as file:
            for line in file:
                if line.startswith("Name:"):
                    name = line.split(None, 1)[1].rstrip("\n") if len(line.split(None, 1)) > 1 else ""
                elif line.startswith("Uid:"):
                    uid = int(line.split()[2])
                    break
        with open(f"/proc/{pid}/cmdline", errors="surrogateescape") as file:
            words = file.read(4096).rstrip("\0").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return Process(pid, None, "")
    return Process(pid, uid, printable(words or name))


def printable(text: str) -> str:
    """Without control characters and bytes that are no text: a process may call itself anything."""
    return "".join(char if char.isprintable() else "?" for char in text)
