"""A Dask cluster over two machines, which are namespaces; one is cut off and killed in the middle of a job."""

from __future__ import annotations

import json
import os
import sys
import sysconfig

import pytest

import corten
import python_root
from machines import Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOB = """
import json, sys, time
import dask.array as da
from distributed import as_completed, futures_of
from corten.dask import ContainerCluster

hosts, ssh_options = json.loads(sys.argv[1])

def squares(block):
    time.sleep(0.2)  # the work
    return block * block

if __name__ == "__main__":
    with ContainerCluster(
        hosts=hosts, ssh_options=ssh_options, cpus=0.5, memory="400m", n_workers=2
    ) as cluster, cluster.get_client() as client:
        client.wait_for_workers(2)
        where = {worker["host"] for worker in client.scheduler_info()["workers"].values()}
        numbers = da.arange(2400, chunks=100).map_blocks(squares).persist()
        done = as_completed(futures_of(numbers))
        for _ in range(8):
            next(done)
        held = {len(keys) > 0 for keys in client.has_what().values()}
        print(json.dumps(["middle", sorted(where), sorted(held)]), flush=True)
        sys.stdin.readline()
        total = int(numbers.sum().compute())
        client.wait_for_workers(2, timeout=60)
        events = [event["action"] + ": " + event["reason"] for _, event in client.get_events("corten")]
        print(json.dumps([total, events, len(client.scheduler_info()["workers"])]), flush=True)
"""


@pytest.fixture
def network(tmp_path: Path, nothing_left_behind: None) -> Iterator[Network]:
    made = Network(tmp_path)
    yield made
    made.close()


def test_a_machine_that_is_cut_off_and_killed_in_the_middle_loses_no_result(network: Network) -> None:
    machines = [network.machine(), network.machine()]
    addresses = [machine.address for machine in machines]
    job = network.python(JOB, json.dumps([addresses, network.ssh_options]))
    assert job.stdout is not None
    said = job.stdout.readline()
    assert said, job.communicate()
    assert json.loads(said) == ["middle", addresses, [True]], "both machines were at work"
    machines[1].cut_off()
    machines[1].kill()
    out, err = job.communicate("go\n", timeout=100)
    assert job.returncode == 0, err
    total, events, workers = json.loads(out)
    assert total == sum(number * number for number in range(2400))
    assert f"host-lost: host {addresses[1]} is lost: looking for it again" in events
    assert [event for event in events if event.startswith(f"worker-ended: worker {addresses[1]}-2 on {addresses[1]}: ")]
    assert workers == 2, "the other machine had room for a second one"


def test_a_host_with_another_python_is_one_clear_error(network: Network, tmp_path: Path) -> None:
    _, executable, version = python_root.newer()
    source = os.path.dirname(os.path.dirname(corten.__file__))
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH={source}:{sysconfig.get_path("purelib")} exec {executable} "$@"\n'
    )
    python.chmod(0o755)
    address = network.machine().address
    script = """
import json, sys
import corten
from corten.dask import ContainerCluster
address, ssh_options, python = json.loads(sys.argv[1])
try:
    ContainerCluster(hosts=[address], ssh_options=ssh_options, remote_python=python, cpus=0.5, memory="400m")
except corten.Unsupported as error:
    print(error)
"""
    out, err = network.python(script, json.dumps([address, network.ssh_options, str(python)])).communicate(timeout=100)
    there, here = ".".join(map(str, version)), ".".join(map(str, sys.version_info[:2]))
    assert out.startswith(f"host {address}: Python {there} there and {here} here: what Dask sends does not go"), err
    assert out.count("\n") == 1
