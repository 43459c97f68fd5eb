"""A case's tail under the load that its SLO names: what it measured, replayed with queueing."""

from __future__ import annotations

from perfgate.records import Case, Measured, Outcome


def service_p99_ms(case: Case, outcome: Outcome) -> float | None:
    """P99 with queueing at `service_qps`: Poisson arrivals, one query at a time, whole launches replayed.

    None where nothing is promised, or no valid launch was taken. A query is one execution in the case's own
    shape and mode. See `perfgate.value.queueing` for the simulation and what it was held against.
    """
    slo = case.slo
    if slo.service_p99_ms is None or slo.service_qps is None or not isinstance(outcome, Measured):
        return None
    launches = [one.samples_ns for one in outcome.launches if not one.invalid]
    if not launches:
        return None
    import numpy as np

    from perfgate.value.queueing import Batcher, Service, p99_by_rate

    service = Service({1: [np.asarray(samples) / 1e9 for samples in launches]})
    batcher = Batcher(limit_s=slo.service_p99_ms / 1e3)
    ((_, p99_s),) = p99_by_rate(service, batcher, 1, rates=[slo.service_qps])
    return p99_s * 1e3
