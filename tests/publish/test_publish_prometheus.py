"""The figures by name, label and unit; and that real Prometheus parts take them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from publish_runs import HOSTILE, chat, result, run
from publish_servers import binary, command, environment, fetch, free_ports, perfgate, query, server, until

from perfgate.errors import DataError, InfrastructureError, UsageError
from perfgate.publish.prometheus import (
    BUCKETS_S,
    LABELS,
    Exporter,
    check_gateway,
    families,
    push,
    registry,
    textfile,
)
from perfgate.records import RunResult, Unchanged, Verdict
from perfgate.util.files import record_json

MONITORING = Path(__file__).resolve().parents[2] / "docker/monitoring"
RUN = run(result("resnet50/fp16/b8", Verdict.REGRESSION, 1.08), result("tinyconv/fp16/b8"))


def samples(it: RunResult) -> dict[tuple[str, str], float]:
    """Values by name and case, the classic text format read back."""
    text = generate_latest(registry(it)).decode()
    return {
        (sample.name, sample.labels.get("case", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not {"le", "verdict"} & set(sample.labels)
    }


def test_values_in_base_units() -> None:
    found = {name: value for (name, case), value in samples(RUN).items() if case in ("", "resnet50/fp16/b8")}
    assert found == {
        "perfgate_run_timestamp_seconds": 1_795_312_800,
        "perfgate_run_exit_code": 0,
        "perfgate_info": 1,
        "perfgate_latency_seconds": 0.002,
        "perfgate_p99_latency_seconds": 0.003,
        "perfgate_throughput_queries_per_second": pytest.approx(2000 / 3),
        "perfgate_launch_samples": 4,
        "perfgate_device_memory_bytes": 1 << 24,
        "perfgate_engine_size_bytes": 51_000_000,
        "perfgate_build_seconds": 45,
        "perfgate_ratio": 1.08,
        "perfgate_tolerance_catch_ratio": 0.02,
        "perfgate_slo_p99_latency_seconds": 0.0015,
        "perfgate_throttled_launches": 1,
        "perfgate_sample_latency_seconds_count": 8,
        "perfgate_sample_latency_seconds_sum": pytest.approx(0.018),
    }


def test_labels_verdicts_and_buckets() -> None:
    by_name = {family.name: family for family in families(RUN)}
    verdicts = [
        one for one in by_name["perfgate_verdict"].samples if one.labels["case"] == "resnet50/fp16/b8"
    ]
    assert len(verdicts) == len(Verdict)
    assert [one.labels["verdict"] for one in verdicts if one.value] == ["REGRESSION"]
    labels = {key: verdicts[0].labels[key] for key in LABELS}
    assert labels == {
        "model": "resnet50",
        "case": "resnet50/fp16/b8",
        "precision": "fp16",
        "shape": "b=8",
        "backend": "tensorrt",
        "device": "nvidia-h200",
        "toolchain": "tensorrt-8.5.3.1",
    }
    buckets = {
        one.labels["le"]: one.value
        for one in by_name["perfgate_sample_latency_seconds"].samples
        if one.name.endswith("_bucket") and one.labels["case"] == "resnet50/fp16/b8"
    }
    assert len(buckets) == len(BUCKETS_S) + 1
    # A sample at a bound counts below it, as `le` says.
    assert [buckets[le] for le in ("0.00063", "0.001", "0.0016", "0.0025", "0.004", "+Inf")] == [
        0, 3, 3, 4, 8, 8,
    ]  # fmt: skip


def test_an_unchanged_case_keeps_its_stored_figures() -> None:
    base = {"latency_ns": (1_000_000, 3_000_000), "p99_ns": (4_000_000,), "samples": (600, 500)}
    found = samples(run(result("a", Verdict.UNCHANGED, outcome=Unchanged(), base=base)))
    assert found["perfgate_latency_seconds", "a"] == 0.002
    assert found["perfgate_p99_latency_seconds", "a"] == 0.004
    assert found["perfgate_launch_samples", "a"] == 500
    assert ("perfgate_sample_latency_seconds_count", "a") not in found


def test_hostile_names_stay_label_values() -> None:
    found = samples(run(result(HOSTILE)))
    assert found["perfgate_latency_seconds", HOSTILE] == 0.002


def test_the_registry_holds_nothing_else_and_is_no_global() -> None:
    names = {name for name, _ in samples(RUN)}
    assert all(name.startswith("perfgate_") for name in names)
    registry(RUN)  # a second one of the same names is no conflict


def test_textfile_is_whole(tmp_path: Path) -> None:
    textfile(RUN, tmp_path / "perfgate.prom")
    assert [path.name for path in tmp_path.iterdir()] == ["perfgate.prom"]
    assert (tmp_path / "perfgate.prom").read_text().endswith("\n")


@pytest.mark.parametrize("url", ["", "h:9091", "ftp://h", "http://u:pw@h", "http://h/?pw=1", "http://h:x/"])
def test_a_gateway_s_url_is_checked_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_gateway(url)
    assert "pw" not in str(caught.value)


def test_a_gateway_that_fails_or_is_not_there() -> None:
    with chat() as service, pytest.raises(InfrastructureError, match="nothing was pushed: HTTP 501"):
        push(RUN, service.url)
    with pytest.raises(InfrastructureError, match="nothing was pushed: no connection"):
        push(RUN, f"http://127.0.0.1:{free_ports(1)[0]}", timeout_s=1)


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    reads: list[Path] = []
    warned: list[str] = []

    def read(it: Path) -> RunResult:
        reads.append(it)
        if it.read_text() == "damaged":
            raise DataError("is damaged", where=it)
        return RUN

    def readable() -> tuple[float, int]:
        found = list(source.collect())
        return found[0].samples[0].value, len(found)

    source = Exporter(path, read, warn=warned.append)
    path.write_text("good")
    assert readable()[0] == readable()[0] == 1
    assert len(reads) == 1
    path.write_text("damaged")
    assert readable() == readable()
    assert readable()[0] == 0
    assert readable()[1] > 10, "the last good figures stay"
    assert len(reads) == 2
    assert len(warned) == 1
    path.write_text("good again")
    assert readable()[0] == 1


def test_the_exporter_serves_and_stops_on_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(record_json(RUN))
    child = subprocess.Popen(
        command("exporter", "--results", path, "--port", "0"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        url = child.stdout.readline().split()[1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        assert "perfgate_ratio{" in fetch(url)
        path.write_text(record_json(run(result("other", ratio=0.5))))
        assert 'case="other"' in fetch(url)
        path.unlink()
        assert "perfgate_results_readable 0.0" in fetch(url)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=10)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0
    assert "Traceback" not in err
    assert "cannot be read" in err


def test_the_exporter_s_port_is_taken(tmp_path: Path) -> None:
    with chat() as other:
        done = perfgate("exporter", "--results", tmp_path / "x", "--port", other.url.rsplit(":", 1)[1])
    assert done.returncode == 3
    assert "cannot listen" in done.stderr


def test_metrics_usage(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(record_json(RUN))
    assert perfgate("metrics", path).returncode == 2
    assert perfgate("metrics", path, "--textfile", tmp_path / "x.txt").returncode == 2
    assert perfgate("metrics", path, "--textfile", tmp_path / "x.prom").returncode == 0
    assert "perfgate_verdict" in (tmp_path / "x.prom").read_text()


# Real parts.


def test_the_textfile_passes_promtool(tmp_path: Path) -> None:
    tool = binary("promtool")
    text = generate_latest(registry(RUN))
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""


@pytest.mark.parametrize(
    "arguments", [("rules", "rules.yml"), ("config", "prometheus.yml")], ids=lambda a: a[0]
)
def test_the_shipped_files_pass_promtool(arguments: tuple[str, str]) -> None:
    done = subprocess.run(
        [binary("promtool"), "check", arguments[0], str(MONITORING / arguments[1])],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_and_rules_ask_for_metrics_that_exist() -> None:
    shipped = json.loads((MONITORING / "dashboards/perfgate.json").read_text())
    text = json.dumps(shipped) + (MONITORING / "rules.yml").read_text()
    asked = set(re.findall(r"\bperfgate_[a-z0-9_]+", text))
    known = {sample.name for family in families(RUN) for sample in family.samples}
    assert asked - known == {"perfgate_results_readable"}
    assert len({panel["id"] for panel in shipped["panels"]}) == len(shipped["panels"])


def test_pushed_and_scraped_figures_answer_promql(tmp_path: Path) -> None:
    gateway, prometheus = binary("prometheus-pushgateway"), binary("prometheus")
    pushed, served, asked = free_ports(3)
    results = tmp_path / "results.json"
    results.write_text(record_json(RUN))
    rules = (MONITORING / "rules.yml").read_text()
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [rules.yml]\nscrape_configs:\n"
        f"- {{job_name: push, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{pushed}']}}]}}\n"
        f"- {{job_name: exporter, static_configs: [{{targets: ['127.0.0.1:{served}']}}]}}\n"
    )
    with (
        server(
            [gateway, f"--web.listen-address=127.0.0.1:{pushed}"],
            f"http://127.0.0.1:{pushed}/-/ready",
            tmp_path / "gateway.log",
        ),
        server(
            command("exporter", "--results", results, "--port", str(served)),
            f"http://127.0.0.1:{served}/metrics",
            tmp_path / "exporter.log",
        ),
    ):
        done = perfgate("metrics", results, "--pushgateway", f"http://127.0.0.1:{pushed}")
        assert done.returncode == 0, done.stderr
        # A second push replaces the first: the case that is gone leaves nothing behind.
        push(run(result("resnet50/fp16/b8", Verdict.REGRESSION, 1.08)), f"http://127.0.0.1:{pushed}")
        with server(
            [
                prometheus,
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data",
                f"--web.listen-address=127.0.0.1:{asked}",
            ],
            f"http://127.0.0.1:{asked}/-/ready",
            tmp_path / "prometheus.log",
        ):
            until(lambda: len(query(asked, "perfgate_latency_seconds")) == 3, "scraped figures")
            found = query(asked, 'perfgate_latency_seconds{job="perfgate"}')
            assert [(one["metric"]["case"], one["value"][1]) for one in found] == [
                ("resnet50/fp16/b8", "0.002")
            ]
            assert found[0]["metric"]["device"] == "nvidia-h200"
            buckets = 'perfgate_sample_latency_seconds_bucket{job="perfgate"}'
            median = query(asked, f"histogram_quantile(0.5, sum by (le) ({buckets}))")
            assert 0.0016 <= float(median[0]["value"][1]) <= 0.0025
            firing = until(lambda: query(asked, 'ALERTS{alertname="PerfgateRegression"}'), "alert")
            assert {one["metric"]["case"] for one in firing} == {"resnet50/fp16/b8"}
            slo = query(asked, 'ALERTS{alertname="PerfgateSloBroken"}')
            assert slo == [], "four samples break no SLO"
