"""The record of jobs: each ends in exactly one final state, whatever clients, workers and restarts do."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from ad_service.storage.jobs import MAX_ATTEMPTS, MAX_CRASHES, Jobs
from ad_service.worker import protocol
from blender_addon import wire
from blender_addon.wire import JobRequest, JobStatus, Result, WireError


def request(seed: int = 0) -> JobRequest:
    return JobRequest.parse({"kind": "synthesize", "parameters": {"seed": seed}, "inputs": {"swatch": "0" * 64}})


def succeeded(job: str) -> protocol.Succeeded:
    return protocol.Succeeded(job, Result({"image": "1" * 64}, {"seam_x": 1.0}, ("a note",), 2.5))


def failed(job: str) -> protocol.Failed:
    return protocol.Failed(job, WireError("nan-output", "at step 3").problem())


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    record = Jobs(tmp_path / "jobs.sqlite")
    yield record
    record.close()


def reopen(jobs: Jobs) -> Jobs:
    jobs.close()
    again = Jobs(jobs.file)
    again.recover()
    return again


def test_a_job_waits_runs_and_succeeds(jobs: Jobs) -> None:
    status, new = jobs.submit("a", request())
    assert (status.state, status.attempt, status.progress, new) == ("queued", 1, 0.0, True)
    claimed = jobs.claim()
    assert claimed is not None and (claimed.id, claimed.state) == ("a", "running")
    jobs.progress(protocol.Progress("a", 0.5, "Step 1 of 2", 3.0, "2" * 64))
    status = jobs.get("a")
    assert (status.progress, status.message, status.seconds_left, status.preview) == (0.5, "Step 1 of 2", 3.0, "2" * 64)
    status = jobs.finish(succeeded("a"))
    assert (status.state, status.progress, status.seconds_left) == ("succeeded", 1.0, None)
    assert status.result == succeeded("a").result


def test_submitting_the_same_again_returns_the_job_as_it_is(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    jobs.finish(succeeded("a"))
    status, new = jobs.submit("a", request())
    assert (status.state, new) == ("succeeded", False)


def test_the_same_name_for_another_request_is_a_conflict(jobs: Jobs) -> None:
    jobs.submit("a", request(seed=1))
    with pytest.raises(WireError, match="job a exists") as caught:
        jobs.submit("a", request(seed=2))
    assert caught.value.code == "conflict"


def test_defaults_spelt_out_are_the_same_request(jobs: Jobs) -> None:
    jobs.submit("a", request())
    spelt = JobRequest.parse({"kind": "synthesize", "parameters": {"tile": "xy"}, "inputs": {"swatch": "0" * 64}})
    assert jobs.submit("a", spelt)[1] is False


def test_jobs_run_in_the_order_of_their_submission(jobs: Jobs) -> None:
    for name in ("c", "a", "b"):
        jobs.submit(name, request())
    order = [jobs.claim() for _ in range(4)]
    assert [status.id if status else None for status in order] == ["c", "a", "b", None]


def test_the_queue_has_an_end(jobs: Jobs) -> None:
    for i in range(wire.MAX_QUEUE):
        jobs.submit(str(i), request())
    with pytest.raises(WireError, match=str(wire.MAX_QUEUE)) as caught:
        jobs.submit("one more", request())
    assert caught.value.code == "queue-full"
    assert jobs.submit("0", request())[1] is False
    jobs.cancel("1")
    assert jobs.submit("one more", request())[1] is True


def test_canceling_a_job_that_waits_ends_it_at_once(jobs: Jobs) -> None:
    jobs.submit("a", request())
    assert jobs.cancel("a").state == "canceled"
    assert jobs.claim() is None


def test_canceling_a_job_that_runs_waits_for_the_worker(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    assert jobs.cancel("a").state == "canceling"
    revision = jobs.get("a").revision
    assert jobs.cancel("a").revision == revision
    assert jobs.finish(protocol.Canceled("a")).state == "canceled"


def test_a_committed_result_beats_a_cancel(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    jobs.finish(succeeded("a"))
    assert jobs.cancel("a").state == "succeeded"


def test_a_result_that_comes_while_canceling_is_kept(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    jobs.cancel("a")
    assert jobs.finish(succeeded("a")).state == "succeeded"


def test_progress_never_goes_back_or_beyond_the_end(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    seen = []
    for fraction in (0.5, 0.2, 7.0):
        jobs.progress(protocol.Progress("a", fraction, ""))
        seen.append(jobs.get("a").progress)
    assert seen == [0.5, 0.5, 1.0]


def test_a_preview_stays_until_a_newer_one_comes(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    jobs.progress(protocol.Progress("a", 0.1, "", None, "2" * 64))
    jobs.progress(protocol.Progress("a", 0.2, "", None, None))
    assert jobs.get("a").preview == "2" * 64


def test_progress_of_a_job_that_has_ended_is_dropped(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    ended = jobs.finish(failed("a"))
    jobs.progress(protocol.Progress("a", 0.9, "late"))
    assert jobs.get("a") == ended
    assert ended.problem == WireError("nan-output", "at step 3").problem()


def test_a_job_whose_worker_dies_is_tried_again_and_then_fails(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    assert (jobs.crashed("a", "of signal SIGSEGV").state, jobs.get("a").attempt) == ("queued", 2)
    jobs.claim()
    status = jobs.crashed("a", "of signal SIGKILL")
    assert status.state == "failed"
    assert status.problem is not None and status.problem["type"] == "worker-crashed"
    assert "2 times" in status.problem["detail"] and "SIGKILL" in status.problem["detail"]


def test_a_job_that_is_being_canceled_when_its_worker_dies_is_canceled(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    jobs.cancel("a")
    assert jobs.crashed("a", "of signal SIGTERM").state == "canceled"


def test_after_a_restart_what_ran_waits_again_and_the_rest_is_as_it_was(jobs: Jobs) -> None:
    for name in ("done", "canceling", "running", "waiting"):
        jobs.submit(name, request())
    jobs.claim()
    jobs.finish(succeeded("done"))
    jobs.claim()
    jobs.cancel("canceling")
    jobs.claim()
    again = reopen(jobs)
    states = {status.id: (status.state, status.attempt) for status in again.newest()}
    assert states == {
        "done": ("succeeded", 1),
        "canceling": ("canceled", 1),
        "running": ("queued", 2),
        "waiting": ("queued", 1),
    }
    first = again.claim()
    assert first is not None and first.id == "running"
    again.close()


def test_a_job_that_every_restart_finds_running_fails_in_the_end(jobs: Jobs) -> None:
    jobs.submit("a", request())
    for _ in range(MAX_ATTEMPTS):
        jobs.claim()
        jobs = reopen(jobs)
    status = jobs.get("a")
    assert status.state == "failed"
    assert status.problem is not None and status.problem["type"] == "interrupted"
    jobs.close()


def test_an_unknown_job_is_not_found(jobs: Jobs) -> None:
    for ask in (jobs.get, jobs.cancel):
        with pytest.raises(WireError, match="no job nowhere") as caught:
            ask("nowhere")
        assert caught.value.code == "not-found"


def test_the_newest_jobs_come_first(jobs: Jobs) -> None:
    for name in ("a", "b", "c"):
        jobs.submit(name, request())
    assert [status.id for status in jobs.newest(limit=2)] == ["c", "b"]


def test_old_jobs_that_have_ended_are_forgotten(jobs: Jobs) -> None:
    for name in ("a", "b", "c", "d"):
        jobs.submit(name, request())
    for name in ("a", "b", "c"):
        jobs.cancel(name)
    jobs.forget(keep=1)
    assert [status.id for status in jobs.newest()] == ["d", "c"]


def test_the_pictures_that_jobs_name_are_known(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim()
    jobs.progress(protocol.Progress("a", 0.1, "", None, "2" * 64))
    jobs.finish(succeeded("a"))
    assert jobs.blobs() == {"0" * 64, "1" * 64, "2" * 64}


def test_listeners_hear_of_each_committed_change_and_of_no_refused_one(jobs: Jobs) -> None:
    heard: list[tuple[str, str]] = []
    with jobs.listener(lambda job: heard.append((job, jobs.get(job).state))):
        jobs.submit("a", request())
        with pytest.raises(WireError):
            jobs.submit("a", request(seed=5))
        jobs.claim()
        jobs.cancel("a")
    jobs.finish(protocol.Canceled("a"))
    assert heard == [("a", "queued"), ("a", "running"), ("a", "canceling")]


def test_a_change_that_breaks_off_in_the_middle_changes_nothing(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        jobs.submit(name, request())
    end = jobs._end

    def break_at_b(job: str, *arguments: object, **columns: object) -> None:
        if job == "b":
            raise OSError
        end(job, *arguments, **columns)

    monkeypatch.setattr(jobs, "_end", break_at_b)
    with pytest.raises(OSError):
        jobs.fail_waiting(WireError("device-unavailable", "no kernel image"))
    assert [status.state for status in jobs.newest()] == ["queued", "queued"]
    monkeypatch.undo()
    jobs.fail_waiting(WireError("device-unavailable", "no kernel image"))
    assert [status.state for status in jobs.newest()] == ["failed", "failed"]


def test_threads_that_submit_the_same_job_make_one(jobs: Jobs) -> None:
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(jobs.submit("a", request())[1])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    Jobs(file).close()
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RuntimeError, match="newer version"):
        Jobs(file)


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    file.write_bytes(b"this is no database" * 100)
    with pytest.raises(RuntimeError, match=r"jobs\.sqlite cannot be used"):
        Jobs(file)


def test_a_record_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    record = Jobs(file)
    for number in range(50):
        record.submit(str(number), request())
    record.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\x55" * (len(whole) - 4096))
    with pytest.raises(RuntimeError, match=r"jobs\.sqlite cannot be used.*move it away"):
        Jobs(file)


def test_a_record_with_a_job_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    record = Jobs(file)
    record.submit("a", request())
    record.close()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE jobs SET request = '{half'")
    db.close()
    with pytest.raises(RuntimeError, match=r"jobs\.sqlite cannot be used"):
        Jobs(file)


def test_a_full_disk_is_told_as_such_and_changes_nothing(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(WireError) as caught:
        for i in range(wire.MAX_QUEUE):
            jobs.submit(f"{i} " + "x" * 5000, request())
    assert caught.value.code == "disk-full"
    jobs._db.execute("PRAGMA max_page_count = 1000000")
    assert jobs.cancel("a").state == "canceled"


class LifeOfJobs(RuleBasedStateMachine):
    """Clients, a worker and restarts in any order. Finals never change, revisions only grow."""

    names = Bundle("names")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.jobs = Jobs(Path(self.folder.name) / "jobs.sqlite")
        self.seen: dict[str, JobStatus] = {}
        self.crashes: dict[str, int] = {}
        self.running: str | None = None

    def teardown(self) -> None:
        if hasattr(self, "jobs"):
            self.jobs.close()
            self.folder.cleanup()

    @rule(target=names, name=st.uuids(version=4).map(str))
    def submit(self, name: str) -> str:
        self.jobs.submit(name, request())
        return name

    @rule(name=names)
    def submit_again(self, name: str) -> None:
        assert self.jobs.submit(name, request())[1] is False

    @rule(name=names)
    def cancel(self, name: str) -> None:
        before = self.jobs.get(name)
        after = self.jobs.cancel(name)
        assert after == before if before.final else after.state in ("canceling", "canceled")

    @rule()
    def claim(self) -> None:
        if self.running is None:
            status = self.jobs.claim()
            self.running = status.id if status else None

    @rule(fraction=st.floats(-1, 2))
    def progress(self, fraction: float) -> None:
        if self.running is not None:
            self.jobs.progress(protocol.Progress(self.running, fraction, "on the way"))

    @rule(how=st.sampled_from([succeeded, failed, protocol.Canceled]))
    def finish(self, how: type[protocol.Canceled]) -> None:
        if self.running is not None:
            assert self.jobs.finish(how(self.running)).final
            self.running = None

    @rule(name=names)
    def finish_late(self, name: str) -> None:
        """The worker speaks of a job that it was not given, or no more."""
        if name != self.running:
            before = self.jobs.get(name)
            assert self.jobs.finish(succeeded(name)) == before

    @rule()
    def crash(self) -> None:
        if self.running is not None:
            self.crashes[self.running] = self.crashes.get(self.running, 0) + 1
            status = self.jobs.crashed(self.running, "of signal SIGKILL")
            assert status.final or (status.state == "queued" and self.crashes[self.running] < MAX_CRASHES)
            self.running = None

    @rule()
    def restart(self) -> None:
        self.jobs = reopen(self.jobs)
        self.running = None
        assert all(status.final or status.state == "queued" for status in self.jobs.newest(-1))

    @rule(name=consumes(names), target=names)
    def drain(self, name: str) -> object:
        """A worker that does its work brings every job to an end."""
        while self.running is not None or (status := self.jobs.claim()) is not None:
            self.jobs.finish(succeeded(self.running or status.id))
            self.running = None
        assert all(status.final for status in self.jobs.newest(-1))
        return multiple(name)

    @invariant()
    def history_only_goes_forward(self) -> None:
        if not hasattr(self, "jobs"):
            return
        now = {status.id: status for status in self.jobs.newest(-1)}
        assert set(self.seen) <= set(now)
        for name, before in self.seen.items():
            after = now[name]
            assert after == before if before.final else after.revision >= before.revision
            assert after.revision > before.revision or after == before
            assert after.attempt >= before.attempt
        for status in now.values():
            assert status.state in wire.STATES
            assert 0.0 <= status.progress <= 1.0
            assert (status.result is not None) == (status.state == "succeeded")
            assert (status.problem is not None) == (status.state == "failed")
        active = [status.id for status in now.values() if status.state in ("running", "canceling")]
        assert active == ([self.running] if self.running else [])
        self.seen = now


TestLifeOfJobs = LifeOfJobs.TestCase
TestLifeOfJobs.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
