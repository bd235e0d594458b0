"""A layer unpacked in the form that an overlay takes as a lower directory.

    .wh.NAME        becomes a 0/0 character device called NAME: the name is deleted
    .wh..wh..opq    becomes an attribute of its directory: what lies below it shows nothing

Rule 1: a whiteout hides what lower layers have, never what its own layer has, in whatever order they come.
Rule 2: both kinds of overlay understand it: those that the kernel lets root mount (trusted.*) and those in a user
        namespace (user.*).
Sources: OCI image specification, layer.md; kernel, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat

from corten.images.lookup import OPAQUE_NAMES
from corten.images.unpack import Refused, Tree
from corten.linux.idmap import to_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile

    from corten.images.unpack import About
    from corten.runtime.helper import Maps

PREFIX = ".wh."
OPAQUE = ".wh..wh..opq"
_OTHERS = ".wh..wh."  # of aufs, which are no part of the contents


class LayerTree(Tree):
    """The directory being filled. maps: of the user namespace that this process is in, None for the machine's own.

    Only root there can make device nodes; others leave them out. others: how many members belong to others than root,
    though here all belong to one user.
    """

    absolute = True

    def __init__(self, root: int, directory: str, maps: Maps | None) -> None:
        super().__init__(root, directory)
        self._maps = maps
        self._trusted = self.privileged and maps is None
        self.others = 0
        # By where they really are; what becomes of them is decided in the end.
        self._opaque: set[str] = set()
        self._deleted: set[tuple[str, str]] = set()

    def leaves_out(self, parts: tuple[str, ...]) -> bool:
        """Whiteouts are carried out in the end instead."""
        name = parts[-1] if parts else ""
        if not name.startswith(PREFIX):
            return False
        if name == OPAQUE:
            self._opaque.add(self.within(self.open_parent(parts[:-1])))
        elif not name.startswith(_OTHERS):
            deleted = name[len(PREFIX) :]
            if deleted in ("", ".", ".."):
                raise Refused("it deletes nothing that can have a name")
            self._deleted.add((self.within(self.open_parent(parts[:-1])), deleted))
        return True

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Make one member. Refused: it belongs to somebody whom this user namespace does not have."""
        if self._maps:
            for kind, number, maps in (("user", member.uid, self._maps[0]), ("group", member.gid, self._maps[1])):
                if to_host(number, maps) is None:
                    most = sum(one.size for one in maps)
                    raise Refused(f"it belongs to {kind} {number}, but there are {most} here: see /etc/sub{kind[0]}id")
        self.others += not self.privileged and bool(member.uid or member.gid)
        super().add(archive, member)

    def make_device(self, parts: tuple[str, ...], member: tarfile.TarInfo, about: About) -> None:
        """As the archive says; which of them a container may open is decided by its list of devices."""
        if not self._trusted:
            return
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        parent = self.place(parts)
        os.mknod(parts[-1], kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        self.finish_special(parent, parts[-1], about)
        os.chmod(parts[-1], about.mode, dir_fd=parent)

    def finish(self) -> None:
        """First what is deleted and what is opaque, while all directories may be written to."""
        self.close()
        for above, name in sorted(self._deleted):
            parent = self.reopen(above)
            if parent < 0:
                continue
            try:
                self._delete(above, parent, name)
            finally:
                os.close(parent)
        for place in sorted(self._opaque):
            fd = self.reopen(place)
            if fd >= 0:
                try:
                    set_opaque(fd, self._trusted)
                finally:
                    os.close(fd)
        super().finish()

    def _delete(self, above: str, parent: int, name: str) -> None:
        try:
            about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(name, stat.S_IFCHR | 0o600, 0, dir_fd=parent)
            return
        if stat.S_ISDIR(about.st_mode):  # else what is there hides the lower one by itself
            self._opaque.add(f"{above}/{name}" if above else name)


def set_opaque(fd: int, trusted: bool) -> None:
    """Have a directory show nothing of what lies below it, for overlays of either kind. OSError."""
    for name in OPAQUE_NAMES:
        if trusted or name.startswith("user."):
            os.setxattr(fd, name, b"y")
