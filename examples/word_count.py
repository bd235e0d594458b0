"""Word count, the classic: a corpus split over containers, counted in each, added up here.

    python examples/word_count.py [FILE...]      by default: the licenses on this machine and Python's own manual
"""

from __future__ import annotations

import glob
import os
import pydoc_data.topics
import re
import sys
import time
from collections import Counter

import corten

PIECE = 64 << 10
"""Characters that a container gets."""


@corten.function(memory="128m", cpus=1, timeout=60)
def count(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\W\d_]+", text.lower()))


def corpus(names: list[str]) -> str:
    texts = []
    for name in names or sorted(glob.glob("/usr/share/common-licenses/*")):
        if os.path.isfile(name) and not os.path.islink(name):
            with open(name, encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
    return "\n".join(texts if names else [*texts, *pydoc_data.topics.topics.values()])


def pieces(text: str) -> list[str]:
    """The text cut at the ends of lines: no word is cut."""
    found, start = [], 0
    while start < len(text):
        end = text.find("\n", start + PIECE) + 1 or len(text)
        found.append(text[start:end])
        start = end
    return found


def main() -> None:
    text = corpus(sys.argv[1:])
    parts = pieces(text)
    start = time.perf_counter()
    total: Counter[str] = Counter()
    for part in count.map(parts, ordered=False):  # each in a fresh container, as many at once as fit
        total += part
    seconds = time.perf_counter() - start
    print(f"{len(text)} characters in {len(parts)} containers: {total.total()} words, {len(total)} different, "
          f"{seconds:.2f} s")
    print(", ".join(f"{word} {times}" for word, times in total.most_common(8)))
    print("equal to one process:", total == count.local(text))


if __name__ == "__main__":
    main()
