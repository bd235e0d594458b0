"""What `--help` shows as examples, by command. A test reads every line with the command's own table.

Apart from the tables, which every start loads.
"""

from __future__ import annotations

EXAMPLES = {
    "corten run": (
        "corten run --memory 256m --cpus 1 host python3 -c 'print(6 * 7)'",
        "corten run -it --rm debian:bookworm bash",
        "corten run -v .:/work -w /work --network host --timeout 10m python:3 pip list",
        "corten run --rootfs ./root --read-only --tmpfs /tmp -u 1000:1000 ls -l /",
    ),
    "corten plan": (
        "corten plan --memory 512m host true",
        "corten plan --compare-with box --memory 512m host sleep 600",
    ),
    "corten map": (
        "corten map --memory 256m --cpus 1 data/*.csv -- python score.py {}",
        "corten map --account scores.csv --resume -a inputs.txt -- python score.py {}",
    ),
    "corten build": (
        "corten build -t app:1 .",
        "corten build -f Containerfile.dev --target test --build-arg VERSION=2 .",
    ),
    "corten doctor": ("corten doctor", "corten doctor --json"),
    "corten explain": ("corten explain box", "corten explain $$"),
    "corten stats": ("corten stats", "corten stats --watch box", "corten stats --plot usage.svg --duration 60 box"),
    "corten top": ("corten top", "corten top --interval 0.5"),
    "corten namespaces": (
        "corten namespaces --type net,pid",
        "corten namespaces --same 1 4711",
        "corten namespaces --common --type user,net",
        "corten namespaces --output namespaces.svg",
    ),
    "corten cgroups": (
        "corten cgroups --controller memory",
        "corten cgroups --controller pids --output pids.png --theme dark",
        "corten cgroups --watch --controller pids /system.slice",
    ),
    "corten login": ("corten login registry.example", "corten login -u me --password-stdin registry.example"),
    "corten logout": ("corten logout registry.example",),
    "corten system df": ("corten system df", "corten system df --json"),
    "corten image ls": ("corten image ls", "corten image ls -q debian"),
    "corten image inspect": ("corten image inspect debian:bookworm",),
    "corten image history": ("corten image history --no-trunc app:1",),
    "corten image tag": ("corten image tag app:1 registry.example/me/app:1",),
    "corten image rm": ("corten image rm app:1 app:2",),
    "corten image prune": ("corten image prune", "corten image prune --all --builds"),
    "corten image bootstrap": (
        "corten image bootstrap debian:bookworm",
        "corten image bootstrap --packages python3,python3-numpy science:trixie",
    ),
    "corten image pull": (
        "corten image pull debian:bookworm",
        "corten image pull --platform linux/arm64 ghcr.io/org/app:1",
    ),
    "corten image push": (
        "corten image push registry.example/me/app:1",
        "corten image push app:1 registry.example/me/app:1",
    ),
    "corten image save": ("corten image save -o app.tar app:1", "corten image save app:1 | zstd > app.tar.zst"),
    "corten image load": ("corten image load -i app.tar", "docker save app | corten image load"),
    "corten image import": (
        "corten image import -c 'CMD [\"sh\"]' root.tar.gz app:1",
        "docker export box | corten image import - app:1",
    ),
    "corten image export": ("corten image export -o root.tar app:1",),
}
