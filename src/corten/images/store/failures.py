"""What the disk refuses, in words that say what to do."""

from __future__ import annotations

import errno

from corten.errors import errno_words


def complaint(error: OSError, what: str, directory: str) -> str:
    """One line about a thing that could not be made in a directory of ours."""
    words = errno_words(error.errno) if error.errno else str(error)
    text = f"cannot make {what} in {directory}: {words}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}: free some space or set CORTEN_HOME to a directory with more; nothing was left there"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{text}: set CORTEN_HOME to a directory of yours"
    return text
