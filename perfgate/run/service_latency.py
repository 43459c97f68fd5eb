"""A case's tail under the load that its SLO names: what it measured, replayed with queueing."""

from __future__ import annotations

import math

from perfgate.gate.verdict.evidence import ServiceLatency
from perfgate.records import Case, Environment, Measured, Outcome
from perfgate.value.stacks import no_request

# So many arrivals are simulated: near its capacity a queue takes thousands to settle.
_ARRIVALS = 20_000
_HORIZON_LIMITS = 40


def service_latency(case: Case, outcome: Outcome, environment: Environment) -> ServiceLatency | None:
    """P99 with queueing at `service_qps`: Poisson arrivals, one query at a time, whole launches replayed.

    None where nothing is promised. A query is one execution in the case's own shape and mode; a mode that is
    no request's is not simulated, and a load that reaches what one lane serves has no tail: its queue grows
    without end. See `perfgate.value.queueing` for the simulation and what it was held against.
    """
    slo = case.slo
    if slo.service_p99_ms is None or slo.service_qps is None:
        return None
    if not isinstance(outcome, Measured):
        return ServiceLatency(why="no launches to simulate")
    if why := no_request(outcome.mode or case.mode, environment):
        return ServiceLatency(why=why)
    launches = [one.samples_ns for one in outcome.launches if not one.invalid]
    if not launches:
        return ServiceLatency(why="no launches to simulate")
    import numpy as np

    from perfgate.value.queueing import Batcher, Service, p99_by_rate

    times_s = [np.asarray(samples) / 1e9 for samples in launches]
    capacity_qps = 1 / math.fsum(float(one.mean()) for one in times_s) * len(times_s)
    if slo.service_qps >= capacity_qps:
        return ServiceLatency(capacity_qps=capacity_qps)
    horizon_s = _ARRIVALS / slo.service_qps / _HORIZON_LIMITS
    batcher = Batcher(limit_s=max(slo.service_p99_ms / 1e3, horizon_s))
    ((_, p99_s),) = p99_by_rate(Service({1: times_s}), batcher, 1, rates=[slo.service_qps])
    return ServiceLatency(p99_ms=p99_s * 1e3, capacity_qps=capacity_qps)
