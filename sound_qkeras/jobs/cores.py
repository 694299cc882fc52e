"""Which processor cores a job takes: threads of BLAS for large matrices, and whoever shares the leaves of a box."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sound_qkeras.network import Network

# Below this, matrix products are so small that a second BLAS thread costs far more than it brings (10x was measured).
MANY_PARAMETERS = 200_000


@contextmanager
def cores_for(network: Network, n_jobs: int | None = None) -> Iterator[None]:
    """While inside, BLAS takes the threads that pay for a network, and leaves are shared as `shared_by` says."""
    from threadpoolctl import threadpool_limits

    with (
        threadpool_limits(1 if network.parameter_count < MANY_PARAMETERS else None, user_api="blas"),
        shared_by(n_jobs),
    ):
        yield


@contextmanager
def shared_by(n_jobs: int | None) -> Iterator[None]:
    """While inside, so many jobs of joblib's prove the leaves; None leaves it to what joblib was told, or to `over_batches`."""
    import joblib

    with joblib.parallel_config() if n_jobs is None else joblib.parallel_config(n_jobs=n_jobs):
        yield
