"""The measurements of the service under load, with small numbers and an engine that does nothing."""

from __future__ import annotations

import re
import sys

import pytest

from ad_service.bench.service_load import LoadOptions, measure


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")
def test_every_figure_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    options = LoadOptions(
        b"swatch",
        40,
        5,
        poll_seconds=0.5,
        clients=2,
        upload_bytes=10**6,
        size=64,
        engine="tests.support.engines:phases",
    )
    monkeypatch.setenv("PYTHONPATH", ".")
    shown: list[str] = []
    figures = measure(options, lambda figure: shown.append(figure.name))
    assert [figure.name for figure in figures] == shown
    assert shown == [
        "polls during a job",
        "polls during a job, while 1 MB are sent",
        "5 streams of events",
        "the service's own time of a job",
        "cancel in 'start' at 64x64",
        "cancel in 'denoise' at 64x64",
        "submitting 40 jobs that wait",
        "restart with 41 jobs",
    ]
    measured = {figure.name: figure.measured for figure in figures}
    assert re.match(
        r"\d+ a second, median [\d.]+ ms, p99 [\d.]+ ms, [\d.]+ ms of CPU each \(the job is running\)",
        measured[shown[0]],
    )
    assert measured["5 streams of events"].endswith(" events, 0 doubles, 0 streams backwards, 5 saw the end")
    assert re.match(r"canceled after \d\.\d s, local-1 stayed", measured[shown[5]])
