"""Sizes, durations, CPU counts and whole numbers as people write them, exactly.

Rule 1: an answer is in base units: bytes, seconds, CPUs.
Rule 2: a mistake is an `InvalidInput` that names the option (`label`), the text, and what would be right.
Rule 3: no floating point on the way: `1.1g` is 11 x 2^30 / 10, rounded down once, as it is a limit.
"""

from __future__ import annotations

from corten.errors import InvalidInput

LARGEST = 2**63 - 1
"""The kernel keeps limits in signed 64-bit numbers."""

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_NANOSECONDS = {"us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def fraction(text: str) -> tuple[int, int] | None:
    """`1.50` as (150, 100): a number without sign or exponent, as a numerator and a power of ten; None if it is not."""
    whole, dot, part = text.partition(".")
    if not _digits(whole or "0") or (dot and not _digits(part or "0")) or not (whole or part):
        return None
    return int((whole or "0") + part), int("1" + "0" * len(part))


def size(label: str, value: str | int, *, unlimited: bool = False) -> int:
    """Bytes from `512m`, `1.5g`, `1gib`, `100000000`; units are powers of 1024, as docker has them.

    `unlimited` also allows -1 (and the word `unlimited`), which gives -1.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        result = value
    elif isinstance(value, str):
        result = _size_of(label, value, unlimited)
    else:
        raise InvalidInput(f"{label}: {value!r} is not a size: give a number of bytes or text such as '512m'")
    if result == -1 and unlimited:
        return -1
    if not 0 <= result <= LARGEST:
        wanted = "0 or more bytes, or -1 for no limit" if unlimited else "0 or more bytes"
        raise InvalidInput(f"{label}: {str(value)!r} is out of range: give {wanted}")
    return result


def _size_of(label: str, text: str, unlimited: bool) -> int:
    word = text.strip().lower()
    if unlimited and word in ("-1", "unlimited"):
        return -1
    stem = word.removesuffix("b")
    if stem[-1:] == "i" and stem[-2:-1] in tuple("kmgtpe"):
        stem = stem[:-1]
    unit = stem[-1:] if stem[-1:] in _POWERS else ""
    number = fraction(stem.removesuffix(unit).rstrip())
    if number is None or (unit == "" and number[1] != 1):
        raise InvalidInput(f"{label}: {text!r} is not a size: use a number with b, k, m, g or t")
    return int(number[0] * 1024 ** _POWERS[unit] // number[1])


def show_size(number: int) -> str:
    """Bytes in the largest unit that leaves a whole part, to one decimal: `100 MiB`, `1.5 GiB`, `512 bytes`."""
    power = max(0, min(6, (abs(number).bit_length() - 1) // 10))
    if power == 0:
        return f"{number} bytes"
    text = f"{number / 1024**power:.1f}".removesuffix(".0")
    return f"{text} {'KMGTPE'[power - 1]}iB"


def duration(label: str, value: str | float) -> float:
    """Seconds from `10`, `2.5`, `10s`, `1m30s`, `250ms`, `1h`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value < LARGEST:
            raise InvalidInput(f"{label}: {value!r} is out of range: give 0 or more seconds")
        return value
    if isinstance(value, str):
        text = value.strip().lower()
        number = fraction(text)
        if number is not None:
            return number[0] / number[1]
        total = _nanoseconds(text)
        if total is not None:
            return total / 10**9
    raise InvalidInput(f"{label}: {value!r} is not a duration: use seconds, or text such as 10s, 1m30s, 500ms")


def _nanoseconds(text: str) -> int | None:
    """The sum of numbers with units; None if the text is not that."""
    if not text:
        return None
    total = 0
    while text:
        digits = text[: len(text) - len(text.lstrip("0123456789."))]
        text = text[len(digits) :]
        unit = text[: len(text) - len(text.lstrip("usmhd"))]
        text = text[len(unit) :]
        number = fraction(digits)
        if number is None or unit not in _NANOSECONDS:
            return None
        total += number[0] * _NANOSECONDS[unit] // number[1]
    return total


def offset(label: str, text: str) -> tuple[int, int]:
    """A duration that may be negative, as (seconds, nanoseconds), the latter never negative: what the kernel takes."""
    bare = text.strip().lower()
    sign = -1 if bare.startswith("-") else 1
    bare = bare.lstrip("+-")
    total = _nanoseconds(bare + "s") if fraction(bare) is not None else _nanoseconds(bare)
    if total is None:
        raise InvalidInput(f"{label}: {text!r} is not a duration: use seconds, or text such as 10s, -1h, 7d")
    return divmod(sign * total, 10**9)


def cpus(label: str, value: str | float) -> float:
    """A number of CPUs from `1.5`; 0 means no limit. At least 0.01, the kernel's smallest quota (1 ms of 100 ms)."""
    number: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        pair = fraction(value.strip())
        number = pair[0] / pair[1] if pair else None
    if number is None:
        raise InvalidInput(f"{label}: {value!r} is not a number of CPUs: use a number such as 2 or 0.5")
    if number != 0 and not 0.01 <= number <= 1_000_000:
        raise InvalidInput(f"{label}: {value} CPUs is out of range: use 0.01 or more, or 0 for no limit")
    return number


def whole(label: str, value: str | int, low: int, high: int = LARGEST) -> int:
    """A whole number between `low` and `high`."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        text = value.strip()
        if _digits(text.removeprefix("-")):
            number = int(text)
    if number is None:
        raise InvalidInput(f"{label}: {value!r} is not a whole number")
    if not low <= number <= high:
        between = f"between {low} and {high}" if high != LARGEST else f"{low} or more"
        raise InvalidInput(f"{label}: {number} is out of range: it must be {between}")
    return number


def octal(label: str, value: str | int, high: int = 0o7777) -> int:
    """A mode or umask written in octal: `022`, `1777`."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        text = value.strip().removeprefix("0o") if isinstance(value, str) else ""
        number = int(text, 8) if _digits(text) and not set(text) & {"8", "9"} else -1
    if not 0 <= number <= high:
        raise InvalidInput(f"{label}: {value!r} is not an octal number up to {high:o}")
    return number


_TRUE = ("1", "t", "true", "yes", "on")
_FALSE = ("0", "f", "false", "no", "off")


def switch(label: str, value: str | bool) -> bool:
    """True or false from the words that Go's flag parser takes, and yes, no, on, off."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in (*_TRUE, *_FALSE):
        raise InvalidInput(f"{label}: {value!r} is neither true nor false")
    return word in _TRUE
