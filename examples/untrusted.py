"""Code that nobody has read, such as an agent writes: each snippet in a container of its own, each with its account.

    python examples/untrusted.py

Two of the six are honest. The others fork without end, fill the memory, never end, and look for the machine's secrets.
"""

from __future__ import annotations

from typing import Any

import corten

SNIPPETS = {
    "a sum": "answer = sum(range(1_000_000))",
    "a plot of words": "answer = {word: len(word) for word in 'the quick brown fox'.split()}",
    "a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "a leak": "hoard = []\nwhile True: hoard.append(bytearray(1 << 20))",
    "a loop": "while True: pass",
    "a spy": "answer = open('/etc/shadow').read()",
}


@corten.function(memory="64m", cpus=0.5, pids=32, timeout=3)
def run(code: str) -> Any:
    names: dict[str, Any] = {}
    exec(code, names)
    return names["answer"]


def main() -> None:
    calls = {name: run.spawn(code) for name, code in SNIPPETS.items()}  # all at once; as many run as there is room for
    for name, call in calls.items():
        try:
            said = f"gave {call.get()}"
        except corten.ContainerFailed as error:
            said = error.result.reason
        except Exception as error:
            said = f"raised {error!r}"
        usage = call.usage
        peak = (usage.memory_peak or 0) / (1 << 20) if usage else 0.0
        print(f"{name:16} {said[:78]}  [{usage.cpu_seconds if usage else 0:.2f} CPU seconds, {peak:.0f} MiB]")


if __name__ == "__main__":
    main()
