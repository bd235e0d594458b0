"""What is said of graphics processors, for machines of several kinds."""

from __future__ import annotations

from pathlib import Path

from corten.views.doctor import gpus


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def test_none(tmp_path: Path) -> None:
    put(tmp_path, "dev/nvidiactl", "dev/dri/card0")
    (row,) = gpus.abilities(str(tmp_path))
    assert (row.state, row.needed) == ("missing", False)


def test_without_a_cdi_file(tmp_path: Path) -> None:
    put(tmp_path, "dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "etc/cdi/readme.txt")
    (row,) = gpus.abilities(str(tmp_path))
    assert (row.state, row.mend) == ("degraded", "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")
    assert f"{tmp_path}/dev/nvidia0, {tmp_path}/dev/nvidia1" in row.found


def test_with_a_cdi_file(tmp_path: Path) -> None:
    put(tmp_path, "dev/nvidia0", "var/run/cdi/nvidia.json")
    (row,) = gpus.abilities(str(tmp_path))
    assert (row.state, row.follows) == ("ok", "")
    put(tmp_path / "amd", "dev/kfd", "dev/dri/renderD128", "etc/cdi/amd.yaml")
    assert gpus.abilities(str(tmp_path / "amd"))[0].found.startswith("AMD: ")


def test_closed_to_this_user(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").symlink_to("nowhere")  # also root cannot open it
    (row,) = gpus.abilities(str(tmp_path))
    assert row.state == "degraded"
    assert "no permission" in row.found
    assert row.mend.startswith("usermod -aG ")
