"""How many threads matrix products take."""

from __future__ import annotations

from threadpoolctl import threadpool_limits

from sound_qkeras.network import Network

# Below this, matrix products are so small that a second BLAS thread costs far more than it brings (10x was measured).
MANY_PARAMETERS = 200_000


def threads_for(network: Network) -> threadpool_limits:
    """A context in which BLAS takes the threads that pay for a network."""
    return threadpool_limits(1 if network.parameter_count < MANY_PARAMETERS else None, user_api="blas")
