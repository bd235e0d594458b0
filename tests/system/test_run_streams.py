"""Standard streams and signals as bad callers leave them: closed, full, without a reader, not blocking, ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import corten
from small_root import CORTEN, shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOT = ["--writable", "throwaway", "--rootfs"]


def corten_run(redirections: str, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """`corten run` as a shell starts it with these redirections."""
    script = f'"$@" {redirections}'
    command = ["sh", "-c", script, "sh", CORTEN, "run", *words]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_a_closed_stream_is_the_null_device(closed: tuple[int, ...], tmp_path: Path) -> None:
    # What the command opened first would else get the number: the program would write to a lock, or a control group.
    look = "seen=\"$seen $(readlink /proc/$$/fd/$fd || echo none)\""
    script = f"for fd in 0 1 2; do {look}; done; echo $seen >/shown/streams"
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    done = corten_run(redirections, "-i", "-v", f"{tmp_path}:/shown", *ROOT, shared(), "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = (tmp_path / "streams").read_text().split()
    assert [shown[fd] for fd in closed] == ["/dev/null"] * len(closed)


def test_output_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    words = [CORTEN, "run", "-t", *ROOT, shared(), "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; echo; echo done"]
    with subprocess.Popen(words, stdout=writing) as process:
        os.close(writing)
        data = bytearray()
        while part := os.read(reading, 4096):
            data += part
        os.close(reading)
        assert process.wait() == 0
    assert data.endswith(b"done\r\n")
    assert data.count(b"x") == 300000


def test_a_caller_that_ignores_its_children() -> None:
    ignoring = ["sh", "-c", 'trap "" CHLD; exec "$@"', "sh"]
    words = [CORTEN, "run", *ROOT, shared(), "sh", "-c", "sleep 0.01 & wait; exit 7"]
    done = subprocess.run([*ignoring, *words], timeout=60, check=False)
    assert done.returncode == 7


def test_a_python_program_that_ignores_its_children() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        script = f"import corten; print(corten.run(rootfs={shared()!r}, argv=['sh', '-c', 'exit 7']).exit_code)"
        done = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert done.communicate(timeout=60)[0] == "7\n"
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_with_a_name_that_is_no_text(number: int) -> None:
    script = (
        "import ctypes, os; ctypes.CDLL(None).prctl(15, b'\\xff\\x1b\\n)', 0, 0, 0); "
        f"os.kill(os.getpid(), {int(number)})"
    )
    result = corten.run("host", ["python3", "-c", script])
    assert (result.exit_code, result.signal) == (128 + number, number)
    assert result.reason.isprintable()


def test_errors_are_one_line_whatever_is_in_a_name() -> None:
    done = subprocess.run(
        [CORTEN, "run", *ROOT, shared(), b"a\nb\x1b[31m\xff"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 127
    assert done.stderr.startswith(b"corten: a\\nb\\x1b[31m\\xff: not found")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_an_archive_is_unpacked_leaves_nothing(number: int, tmp_path: Path, home: Path) -> None:
    member = tarfile.TarInfo("zeros")
    member.size = 4 << 30
    archive = tmp_path / "zeros.tar"
    archive.write_bytes(member.tobuf())
    os.truncate(archive, 512 + member.size + 1024)  # a hole: it takes no room, and seconds to unpack
    with subprocess.Popen([CORTEN, "run", str(archive), "true"], stderr=subprocess.PIPE) as process:
        while not (begun := list((home / "archives").glob("*/zeros")) + list((home / "archives").glob(".*/*"))):
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not any(path.exists() for path in begun)
