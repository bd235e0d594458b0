"""A Dask array on a cluster of containers: the mean of a million squares, on two workers with 400 MiB each."""

from __future__ import annotations

import dask.array as da

from corten.dask import ContainerCluster


def main() -> None:
    with ContainerCluster(cpus=0.5, memory="400m", n_workers=2) as cluster, cluster.get_client():
        numbers = da.arange(1_000_000, chunks=100_000)
        print(f"mean of the squares: {(numbers * numbers).mean().compute():.1f}")


if __name__ == "__main__":
    main()
