"""Numbers of OCI `linux.resources` as the kernel takes and shows them. Pure.

Sources: opencontainers/cgroups (shares, swap, weight), the kernel's mm/page_counter.c (rounding) and lib/bitmap.c
(lists).
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput

# the most that a page counter holds, in pages (mm/page_counter.c, 64 bit: LONG_MAX / PAGE_SIZE)
_MOST_BYTES = (1 << 63) - 1
PAGE = os.sysconf("SC_PAGE_SIZE")
_SHARES = (2, 262144)
_SUFFIXES = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}


def weight_of_shares(shares: int) -> int:
    """v2 `cpu.weight` (1..10000) of v1 `cpu.shares` (2..262144); 2 -> 1, 1024 -> 100, 262144 -> 10000.

    opencontainers/cgroups since 2025: 10 ** ((l*l + 125*l) / 612 - 7/34), l = log2(shares), rounded up; the former
    linear formula
    gave the default of 1024 shares a weight of 39, less than the default weight of 100. `InvalidInput` out of range.
    """
    check_shares(shares)
    if shares == _SHARES[0]:
        return 1
    if shares == _SHARES[1]:
        return 10000
    from math import ceil, log2

    log = log2(shares)
    return ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def check_shares(shares: int) -> int:
    """`InvalidInput` for shares that the kernel would silently move into its range."""
    if not _SHARES[0] <= shares <= _SHARES[1]:
        raise InvalidInput(f"linux.resources.cpu.shares: {shares} is not in {_SHARES[0]}..{_SHARES[1]}")
    return shares


def io_weight(weight: int, field: str) -> int:
    """v2 `io.weight` (1..10000) of a block io weight (10..1000), linear as in the OCI runtimes. `InvalidInput` out of
    range."""
    return 1 + (check_weight(weight, field) - 10) * 9999 // 990


def check_weight(weight: int, field: str) -> int:
    """`InvalidInput` for a block io weight out of 10..1000."""
    if not 10 <= weight <= 1000:
        raise InvalidInput(f"{field}: {weight} is not in 10..1000")
    return weight


def swap_v2(limit: int | None, swap: int | None) -> int | None:
    """v2 `memory.swap.max` in bytes of OCI memory+swap `swap`; -1: unlimited; None: leave it.

    limit, swap: OCI values, None or 0 where not given. `InvalidInput`: a swap limit without a memory limit, or below
    it.
    """
    limit, swap = limit or 0, swap or 0
    if limit == -1 and swap == 0:
        return -1
    if swap == 0:
        return None
    if swap == -1 or limit == -1:
        return swap
    if limit == 0:
        raise InvalidInput("linux.resources.memory.swap is memory plus swap: it needs linux.resources.memory.limit")
    if swap < limit:
        raise InvalidInput(
            f"linux.resources.memory.swap: {swap} is below the memory limit of {limit} (it is memory plus swap)"
        )
    return swap - limit


def rounded(value: int, unit: int = PAGE) -> int:
    """Bytes as a page counter keeps them: whole pages, rounded down."""
    return min(value, _MOST_BYTES) // unit * unit


def shown_v1(value: int) -> str:
    """How v1 shows a limit of `value` bytes; negative: unlimited."""
    return str(rounded(_MOST_BYTES if value < 0 else value))


def shown_v2(value: int) -> str:
    """How v2 shows a limit of `value` bytes; negative: unlimited."""
    kept = rounded(value)
    return "max" if value < 0 or kept == rounded(_MOST_BYTES) else str(kept)


def max_or(value: int) -> str:
    """A number, or `max` for a negative one."""
    return "max" if value < 0 else str(value)


def cpu_list(text: str, field: str) -> str:
    """A list like `0-2,5` as the kernel shows it: sorted, merged. `InvalidInput` for anything else."""
    numbers: set[int] = set()
    for part in text.replace("\n", ",").split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidInput(f"{field}: {text!r} is not a list like 0-2,5")
        low, high = int(first), int(last or first)
        if low > high or high > 8191:
            raise InvalidInput(f"{field}: {part.strip()!r} is not a range (0 to 8191, the smaller first)")
        numbers.update(range(low, high + 1))
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and runs[-1][1] == value - 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def size(text: str) -> int | None:
    """Bytes of a number as the kernel's memparse reads it (`512M`, `1g`); None: not one."""
    scale = _SUFFIXES.get(text[-1:].upper())
    digits = text[:-1] if scale else text
    return int(digits) << (scale or 0) if digits.isdecimal() else None


def page_size(text: str) -> int:
    """Bytes of a huge page name like `2MB`. `InvalidInput`."""
    found = size(text[:-1]) if text.endswith("B") and text[-2:-1] in _SUFFIXES else None
    if not found:
        raise InvalidInput(f"linux.resources.hugepageLimits: {text!r} is not a page size like 2MB")
    return found
