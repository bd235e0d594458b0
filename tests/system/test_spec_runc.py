"""Another runtime as the judge: what runc writes we read whole, what we write runc runs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from corten.runtime import defaults, spec


@pytest.mark.parametrize("options", [[], ["--rootless"]])
def test_configuration_of_runc_is_read_whole(tmp_path: Any, options: list[str]) -> None:
    subprocess.run(["runc", "spec", *options], cwd=tmp_path, check=True)
    data = json.loads((tmp_path / "config.json").read_text())
    one = spec.load(str(tmp_path / "config.json"))
    spec.validate(one)
    assert spec.unknown_fields(data) == ()
    del data["process"]["user"]  # root, as by default
    assert spec.encode(one) == data


def test_runc_runs_the_default_configuration(tmp_path: Any) -> None:
    root = tmp_path / "rootfs"
    for name in ("usr", "proc", "dev", "sys"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    one = defaults.default_spec(("sh", "-c", "umask; echo $PATH; grep NoNewPrivs /proc/self/status"))
    assert one.linux is not None
    # runc 1.1 knows neither time namespaces nor version 1.3
    namespaces = tuple(space for space in one.linux.namespaces if space.type != "time")
    one = one.replace(
        oci_version="1.0.2",
        mounts=(*one.mounts, spec.Mount("/usr", "bind", "/usr", ("rbind", "ro"))),
        linux=one.linux.replace(namespaces=namespaces, cgroups_path=f"corten-test-spec-{os.getpid()}"),
    )
    (tmp_path / "config.json").write_text(json.dumps(spec.encode(one)))
    done = subprocess.run(
        ["runc", "--root", str(tmp_path / "state"), "run", f"corten-test-{os.getpid()}"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.split() == ["0022", defaults.PATH, "NoNewPrivs:", "1"]
