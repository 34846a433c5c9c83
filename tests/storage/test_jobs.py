"""The record of jobs: with any order of clients, workers and restarts, each job ends in exactly one final state."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from ad_service.storage.jobs import MAX_ATTEMPTS, MAX_CRASHES, Jobs
from blender_addon import wire
from blender_addon.wire import JobRequest, JobStatus, Result, WireError


def request(seed: int = 0) -> JobRequest:
    return JobRequest.parse({"kind": "synthesize", "parameters": {"seed": seed}, "inputs": {"swatch": "0" * 64}})


RESULT = Result({"image": "1" * 64}, {"seam_x": 1.0}, ("a note",), 2.5)
PROBLEM = WireError("nan-output", "at step 3").problem()


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
    claimed = jobs.claim("local-1")
    assert claimed is not None and (claimed.id, claimed.state) == ("a", "running")
    jobs.progress("a", 0.5, "Step 1 of 2", phase="sampling", seconds_left=3.0, preview="2" * 64)
    status = jobs.get("a")
    assert (status.progress, status.message, status.seconds_left, status.preview) == (0.5, "Step 1 of 2", 3.0, "2" * 64)
    assert (status.phase, status.worker) == ("sampling", "local-1")
    status = jobs.succeed("a", RESULT)
    assert (status.state, status.progress, status.seconds_left) == ("succeeded", 1.0, None)
    assert (status.result, status.phase, status.worker) == (RESULT, "", "local-1")


def test_submitting_the_same_again_returns_the_job_as_it_is(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    jobs.succeed("a", RESULT)
    status, new = jobs.submit("a", request())
    assert (status.state, new) == ("succeeded", False)


def test_another_request_with_the_same_id_is_a_conflict(jobs: Jobs) -> None:
    jobs.submit("a", request(seed=1))
    with pytest.raises(WireError, match="job a exists") as caught:
        jobs.submit("a", request(seed=2))
    assert caught.value.code == "conflict"


def test_a_request_with_explicit_defaults_is_the_same(jobs: Jobs) -> None:
    jobs.submit("a", request())
    explicit = JobRequest.parse({"kind": "synthesize", "parameters": {"tile": "xy"}, "inputs": {"swatch": "0" * 64}})
    assert jobs.submit("a", explicit)[1] is False


def test_jobs_run_in_the_order_of_their_submission(jobs: Jobs) -> None:
    for name in ("c", "a", "b"):
        jobs.submit(name, request())
    order = [jobs.claim("local-1") for _ in range(4)]
    assert [status.id if status else None for status in order] == ["c", "a", "b", None]


def test_artists_take_turns_at_any_length_of_their_queues(jobs: Jobs) -> None:
    for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        jobs.submit(name, request(), artist=name[0])
    expected = ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert [status.id for status in jobs.active()] == expected
    claimed = [jobs.claim("local-1") for _ in range(3)]
    jobs.submit("d1", request(), artist="d")
    jobs.submit("c2", request(), artist="c")
    expected = ["d1", "a2", "b2", "c2", "a3", "a4"]
    assert [status.id for status in jobs.active() if status.state == "queued"] == expected
    claimed = [jobs.claim("local-1") for _ in expected]
    assert [status.id for status in claimed if status] == expected


def test_turns_survive_a_restart(jobs: Jobs) -> None:
    for name in ("a1", "a2", "b1"):
        jobs.submit(name, request(), artist=name[0])
    jobs.claim("local-1")
    jobs.fail("a1", PROBLEM)
    jobs = reopen(jobs)
    claimed = jobs.claim("local-1")
    assert claimed is not None and claimed.id == "b1"
    jobs.close()


def test_each_artist_has_a_queue_limit(jobs: Jobs) -> None:
    jobs.submit("a", request(), artist="anna", max_queue=1)
    with pytest.raises(WireError, match="1 jobs of anna are waiting; 1 is the limit"):
        jobs.submit("b", request(), artist="anna", max_queue=1)
    jobs.submit("c", request(), artist="ben", max_queue=1)
    with pytest.raises(WireError) as caught:
        jobs.submit("a", request(), artist="ben")
    assert caught.value.code == "conflict"


def test_a_full_queue_rejects_new_jobs(jobs: Jobs) -> None:
    for i in range(wire.MAX_QUEUE):
        jobs.submit(str(i), request())
    with pytest.raises(WireError, match=str(wire.MAX_QUEUE)) as caught:
        jobs.submit("one more", request())
    assert caught.value.code == "queue-full"
    assert jobs.submit("0", request())[1] is False
    jobs.cancel("1")
    assert jobs.submit("one more", request())[1] is True


def test_canceling_a_waiting_job_ends_it_at_once(jobs: Jobs) -> None:
    jobs.submit("a", request())
    assert jobs.cancel("a").state == "canceled"
    assert jobs.claim("local-1") is None


def test_canceling_a_running_job_waits_for_the_worker(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    assert jobs.cancel("a").state == "canceling"
    revision = jobs.get("a").revision
    assert jobs.cancel("a").revision == revision
    assert jobs.confirm_cancel("a").state == "canceled"


def test_a_job_that_has_succeeded_cannot_be_canceled(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    jobs.succeed("a", RESULT)
    assert jobs.cancel("a").state == "succeeded"


def test_a_result_that_arrives_while_canceling_is_kept(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    jobs.cancel("a")
    assert jobs.succeed("a", RESULT).state == "succeeded"


def test_progress_never_decreases_or_exceeds_one(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    seen = []
    for fraction in (0.5, 0.2, 7.0):
        jobs.progress("a", fraction, "")
        seen.append(jobs.get("a").progress)
    assert seen == [0.5, 0.5, 1.0]


def test_a_preview_stays_until_a_newer_one_arrives(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    jobs.progress("a", 0.1, "", preview="2" * 64)
    jobs.progress("a", 0.2, "")
    assert jobs.get("a").preview == "2" * 64


def test_progress_of_a_finished_job_is_ignored(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    ended = jobs.fail("a", PROBLEM)
    jobs.progress("a", 0.9, "late")
    assert jobs.get("a") == ended
    assert ended.problem == WireError("nan-output", "at step 3").problem()


def test_a_job_whose_worker_dies_is_queued_again_and_then_fails(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    assert (jobs.crash("a", "by signal SIGSEGV").state, jobs.get("a").attempt) == ("queued", 2)
    jobs.claim("local-1")
    status = jobs.crash("a", "by signal SIGKILL")
    assert status.state == "failed"
    assert status.problem is not None and status.problem["type"] == "worker-crashed"
    assert "2 times" in status.problem["detail"] and "SIGKILL" in status.problem["detail"]


def test_a_job_that_its_worker_never_received_is_queued_again_without_a_crash(jobs: Jobs) -> None:
    jobs.submit("a", request())
    for _ in range(3):
        jobs.claim("local-1")
        status = jobs.unclaim("a")
        assert (status.state, status.attempt, status.worker) == ("queued", 1, None)
    jobs.claim("local-1")
    assert jobs.crash("a", "by signal SIGKILL").state == "queued", "the first crash"
    jobs.claim("local-1")
    jobs.cancel("a")
    assert jobs.unclaim("a").state == "canceled"


def test_a_job_whose_worker_dies_during_a_cancel_is_canceled(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    jobs.cancel("a")
    assert jobs.crash("a", "by signal SIGTERM").state == "canceled"


def test_a_restart_queues_running_jobs_again_and_keeps_the_others(jobs: Jobs) -> None:
    for name in ("done", "canceling", "running", "waiting"):
        jobs.submit(name, request())
    jobs.claim("local-1")
    jobs.succeed("done", RESULT)
    jobs.claim("local-1")
    jobs.cancel("canceling")
    jobs.claim("local-1")
    again = reopen(jobs)
    states = {status.id: (status.state, status.attempt) for status in again.newest()}
    assert states == {
        "done": ("succeeded", 1),
        "canceling": ("canceled", 1),
        "running": ("queued", 2),
        "waiting": ("queued", 1),
    }
    first = again.claim("local-1")
    assert first is not None and first.id == "running"
    again.close()


def test_a_job_that_is_interrupted_at_every_restart_fails(jobs: Jobs) -> None:
    jobs.submit("a", request())
    for _ in range(MAX_ATTEMPTS):
        jobs.claim("local-1")
        jobs = reopen(jobs)
    status = jobs.get("a")
    assert status.state == "failed"
    assert status.problem is not None and status.problem["type"] == "interrupted"
    jobs.close()


def test_an_unknown_job_is_not_found(jobs: Jobs) -> None:
    for method in (jobs.get, jobs.cancel):
        with pytest.raises(WireError, match="no job nowhere") as caught:
            method("nowhere")
        assert caught.value.code == "not-found"


def test_the_newest_jobs_come_first(jobs: Jobs) -> None:
    for name in ("a", "b", "c"):
        jobs.submit(name, request())
    assert [status.id for status in jobs.newest(limit=2)] == ["c", "b"]


def test_the_oldest_finished_jobs_are_removed(jobs: Jobs) -> None:
    for name in ("a", "b", "c", "d"):
        jobs.submit(name, request())
    for name in ("a", "b", "c"):
        jobs.cancel(name)
    jobs.forget(keep=1)
    assert [status.id for status in jobs.newest()] == ["d", "c"]


def test_blobs_are_those_of_inputs_previews_and_outputs(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    jobs.progress("a", 0.1, "", preview="2" * 64)
    jobs.succeed("a", RESULT)
    assert jobs.blobs() == {"0" * 64, "1" * 64, "2" * 64}


def test_listeners_are_called_for_each_committed_change_only(jobs: Jobs) -> None:
    calls: list[tuple[str, str]] = []
    with jobs.listener(lambda job: calls.append((job, jobs.get(job).state))):
        jobs.submit("a", request())
        with pytest.raises(WireError):
            jobs.submit("a", request(seed=5))
        jobs.claim("local-1")
        jobs.cancel("a")
    jobs.confirm_cancel("a")
    assert calls == [("a", "queued"), ("a", "running"), ("a", "canceling")]


def test_an_interrupted_change_is_rolled_back(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_threads_that_submit_the_same_job_create_one(jobs: Jobs) -> None:
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(jobs.submit("a", request())[1])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]


VERSION_1 = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    revision INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    progress REAL NOT NULL,
    message TEXT NOT NULL,
    seconds_left REAL,
    preview TEXT,
    result TEXT,
    problem TEXT,
    created REAL NOT NULL,
    updated REAL NOT NULL
);
CREATE INDEX jobs_by_state ON jobs (state, number);
PRAGMA user_version = 1;
"""
"""The schema of the first release."""


VERSION_2 = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    revision INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    progress REAL NOT NULL,
    message TEXT NOT NULL,
    seconds_left REAL,
    preview TEXT,
    result TEXT,
    problem TEXT,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    worker TEXT,
    phase TEXT NOT NULL DEFAULT ''
);
CREATE INDEX jobs_by_state ON jobs (state, number);
PRAGMA user_version = 2;
"""
"""The schema of version 0.2.0."""


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A record that the first release wrote: jobs that succeeded, were being canceled, and waited."""
    file = tmp_path / "jobs.sqlite"
    parameters = {**request().parameters, "method": "optimise"}
    document = json.dumps({**request().document(), "parameters": parameters})
    result = json.dumps(
        {"outputs": {"image": "1" * 64}, "metrics": {"seam_x": 1.0}, "notes": ["a note"], "seconds": 2.5}
    )
    with sqlite3.connect(file) as db:
        db.executescript(VERSION_1)
        for job, state, outcome in (("a", "succeeded", result), ("b", "cancelling", None), ("c", "queued", None)):
            db.execute(
                "INSERT INTO jobs (id, digest, request, state, revision, attempt, crashes, progress, message, result,"
                " created, updated) VALUES (?, 'd1', ?, ?, 7, 2, 1, 0.5, 'Step 3', ?, 100.0, 200.0)",
                (job, document, state, outcome),
            )
    db.close()
    return file


def test_a_record_of_version_1_is_migrated_with_all_its_jobs(version_1: Path) -> None:
    jobs = Jobs(version_1)
    first, second, third = (jobs.get(job) for job in ("a", "b", "c"))
    assert (first.state, first.result) == ("succeeded", RESULT)
    assert (first.revision, first.attempt, first.message, first.created, first.updated) == (
        7,
        2,
        "Step 3",
        100.0,
        200.0,
    )
    assert (first.worker, first.phase) == (None, "")
    assert (second.state, third.state) == ("canceling", "queued")
    assert [status.id for status in jobs.newest()] == ["c", "b", "a"]
    jobs.recover()
    assert jobs.get("b").state == "canceled"
    claimed = jobs.claim("local-2")
    assert claimed is not None and (claimed.id, claimed.worker) == ("c", "local-2")
    assert jobs.crash("c", "with exit code 3").state == "failed", "the crashes of version 1 count"
    jobs.close()


def test_a_migrated_record_can_be_opened_again(version_1: Path) -> None:
    Jobs(version_1).close()
    jobs = Jobs(version_1)
    assert jobs.submit("d", request())[1] is True
    assert [status.id for status in jobs.newest()] == ["d", "c", "b", "a"]
    jobs.close()


def test_a_failed_migration_leaves_the_record_unchanged(version_1: Path) -> None:
    with sqlite3.connect(version_1) as db:
        db.execute("CREATE TABLE old_jobs (id)")
    db.close()
    with pytest.raises(RuntimeError, match="cannot be used"):
        Jobs(version_1)
    with sqlite3.connect(version_1) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(digest) FROM jobs").fetchone() == (3,)
    db.close()


def test_an_old_job_can_be_submitted_again_after_a_value_was_renamed(version_1: Path) -> None:
    jobs = Jobs(version_1)
    renamed = JobRequest.parse({**request().document(), "parameters": {"method": "optimize"}})
    status, new = jobs.submit("a", renamed)
    assert (status.state, new) == ("succeeded", False)
    with pytest.raises(WireError, match="job a exists"):
        jobs.submit("a", request(seed=5))
    jobs.close()


def test_an_old_job_of_an_unknown_kind_conflicts_with_any_request(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs._db.execute("UPDATE jobs SET request = json_replace(request, '$.kind', 'gone')")
    with pytest.raises(WireError, match="job a exists"):
        jobs.submit("a", request())


def test_a_job_that_is_queued_again_has_no_worker_and_no_phase(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    jobs.progress("a", 0.5, "Step 1 of 2", phase="sampling")
    status = jobs.crash("a", "by signal SIGKILL")
    assert (status.state, status.worker, status.phase) == ("queued", None, "")
    claimed = jobs.claim("local-2")
    assert claimed is not None and claimed.worker == "local-2"
    assert jobs.succeed("a", RESULT).worker == "local-2"


def test_a_record_of_a_newer_version_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    Jobs(file).close()
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RuntimeError, match="newer version"):
        Jobs(file)


def test_the_error_for_a_damaged_record_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(RuntimeError, match=r"jobs\.sqlite cannot be used"):
        Jobs(file)


def test_the_error_for_a_record_with_damaged_pages_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    record = Jobs(file)
    for number in range(50):
        record.submit(str(number), request())
    record.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\x55" * (len(whole) - 4096))
    with pytest.raises(RuntimeError, match=r"jobs\.sqlite cannot be used.*move it away"):
        Jobs(file)


def test_the_error_for_a_damaged_job_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    record = Jobs(file)
    record.submit("a", request())
    record.close()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE jobs SET request = '{half'")
    db.close()
    with pytest.raises(RuntimeError, match=r"jobs\.sqlite cannot be used"):
        Jobs(file)


def test_a_full_disk_is_reported_and_changes_nothing(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(WireError) as caught:
        for i in range(wire.MAX_QUEUE):
            jobs.submit(f"{i} " + "x" * 5000, request())
    assert caught.value.code == "disk-full"
    jobs._db.execute("PRAGMA max_page_count = 1000000")
    assert jobs.cancel("a").state == "canceled"


ENDINGS: list[Callable[[Jobs, str], JobStatus]] = [
    lambda jobs, job: jobs.succeed(job, RESULT),
    lambda jobs, job: jobs.fail(job, PROBLEM),
    lambda jobs, job: jobs.confirm_cancel(job),
]


class JobsMachine(RuleBasedStateMachine):
    """Clients, a worker and restarts in any order. Final states never change and revisions only rise."""

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
            status = self.jobs.claim("local-1")
            self.running = status.id if status else None

    @rule(fraction=st.floats(-1, 2))
    def progress(self, fraction: float) -> None:
        if self.running is not None:
            self.jobs.progress(self.running, fraction, "sampling")

    @rule(how=st.sampled_from(ENDINGS))
    def finish(self, how: Callable[[Jobs, str], JobStatus]) -> None:
        if self.running is not None:
            assert how(self.jobs, self.running).final
            self.running = None

    @rule(name=names)
    def finish_late(self, name: str) -> None:
        """A result for a job that does not run."""
        if name != self.running:
            before = self.jobs.get(name)
            assert self.jobs.succeed(name, RESULT) == before

    @rule()
    def crash(self) -> None:
        if self.running is not None:
            self.crashes[self.running] = self.crashes.get(self.running, 0) + 1
            status = self.jobs.crash(self.running, "by signal SIGKILL")
            assert status.final or (status.state == "queued" and self.crashes[self.running] < MAX_CRASHES)
            self.running = None

    @rule()
    def restart(self) -> None:
        self.jobs = reopen(self.jobs)
        self.running = None
        assert all(status.final or status.state == "queued" for status in self.jobs.newest(-1))

    @rule(name=consumes(names), target=names)
    def drain(self, name: str) -> object:
        """A worker that runs all jobs ends every one of them."""
        while self.running is not None or (status := self.jobs.claim("local-1")) is not None:
            self.jobs.succeed(self.running or status.id, RESULT)
            self.running = None
        assert all(status.final for status in self.jobs.newest(-1))
        return multiple(name)

    @invariant()
    def jobs_never_go_back(self) -> None:
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


TestJobsMachine = JobsMachine.TestCase
TestJobsMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_jobs_that_run_when_the_service_stops_keep_their_attempts(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.submit("b", request())
    for _ in range(MAX_ATTEMPTS + 2):
        jobs.claim("local-1")
        jobs.suspend()
        jobs = reopen(jobs)
    assert (jobs.get("a").state, jobs.get("a").attempt) == ("queued", 1)
    jobs.claim("local-1")
    jobs.cancel("a")
    jobs.suspend()
    assert (jobs.get("a").state, jobs.get("b").state) == ("canceled", "queued")
    jobs.close()


@pytest.mark.parametrize("damage", ["request = '{}'", "request = '[]'", "result = '7'", "request = 'null'"])
def test_a_damaged_job_is_an_error_that_names_the_file(jobs: Jobs, damage: str) -> None:
    jobs.submit("a", request())
    jobs._db.execute(f"UPDATE jobs SET {damage}")
    jobs.close()
    with pytest.raises(RuntimeError, match=r"jobs.sqlite cannot be used .*; make it writable, or move it away"):
        Jobs(jobs.file)


def test_the_file_shrinks_when_jobs_are_removed(jobs: Jobs) -> None:
    problem = {**PROBLEM, "detail": "x" * 20_000}
    for i in range(100):
        jobs.submit(str(i), request())
        jobs.claim("local-1")
        jobs.fail(str(i), problem)
    jobs.compact()
    before = jobs.file.stat().st_size
    assert jobs.forget(5) == 95
    jobs.compact()
    assert jobs.file.stat().st_size < before / 5
    assert [status.id for status in jobs.newest()] == ["99", "98", "97", "96", "95"]


def test_a_record_of_version_0_2_0_is_opened_with_all_its_jobs(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    with sqlite3.connect(file) as db:
        db.executescript(f"PRAGMA journal_mode = WAL; {VERSION_2}")
        db.executemany(
            "INSERT INTO jobs (id, request, state, revision, attempt, crashes, progress, message, created, updated)"
            " VALUES (?, ?, ?, 3, 1, 0, 0.5, 'Step 3', 100.0, 200.0)",
            [(job, json.dumps(request().document()), state) for job, state in (("a", "failed"), ("b", "running"))],
        )
    db.close()
    jobs = Jobs(file)
    assert [(status.id, status.state) for status in jobs.newest()] == [("b", "running"), ("a", "failed")]
    jobs.recover()
    assert (jobs.get("b").attempt, jobs.get("b").artist) == (2, "")
    claimed = jobs.claim("local-1")
    assert claimed is not None and claimed.id == "b"
    assert jobs._db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2
    jobs.close()


def test_the_file_of_an_earlier_version_shrinks_too(version_1: Path) -> None:
    jobs = Jobs(version_1)
    assert jobs._db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2
    jobs.close()


def test_a_problem_with_half_characters_can_be_sent(jobs: Jobs) -> None:
    jobs.submit("a", request())
    jobs.claim("local-1")
    jobs.fail("a", WireError("model-missing", "installed: caf\udce9").problem())
    assert json.dumps(jobs.get("a").document(), ensure_ascii=False).encode()
    problem = jobs.get("a").problem
    assert problem is not None and problem["detail"] == "installed: caf?"


def test_only_jobs_that_have_ended_are_deleted(jobs: Jobs) -> None:
    jobs.submit("a", request())
    with pytest.raises(WireError, match="a is queued") as caught:
        jobs.delete("a")
    assert caught.value.code == "conflict"
    jobs.cancel("a")
    assert jobs.delete("a").id == "a"
    with pytest.raises(WireError) as caught:
        jobs.get("a")
    assert caught.value.code == "not-found"


def test_pages_of_jobs_follow_each_other(jobs: Jobs) -> None:
    for name in "abcde":
        jobs.submit(name, request())
    assert [status.id for status in jobs.newest(2)] == ["e", "d"]
    assert [status.id for status in jobs.newest(2, before="d")] == ["c", "b"]
    assert [status.id for status in jobs.newest(-1, before="b")] == ["a"]
