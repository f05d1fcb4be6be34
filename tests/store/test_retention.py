"""What is kept and what may go: nothing that something needs is ever deleted, and nothing else stays."""

import contextlib
import hashlib
import random
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from core.artifacts import Library
from core.errors import Conflict, NotFound, Unavailable
from core.jobs.protocol import Output
from core.jobs.reasons import EndReason
from core.jobs.state import JobState
from core.settings import Settings
from core.spec import parse_spec
from core.spec.parts.refs import parse_ref
from core.store import Store
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity, Claim
from core.store.attempts.progress import ProgressUpdate
from core.store.new_jobs import NewJob
from core.store.retention import files
from core.store.retention.files import NotHeld
from core.store.schema.access import EVERYTHING
from core.store.schema.tables import Artifact, Job, UnreferencedFolder
from tests.held import held_by
from worker import collector as collecting
from worker.collector import Collector
from worker.outputs import Outputs

CPU = Capacity("w")


@pytest.fixture
def root(request, tmp_path) -> str:
    """Of the storage: ``files`` or ``s3``."""
    if request.param == "files":
        return (tmp_path / "storage").as_uri()
    return request.getfixturevalue("s3_url")


@dataclass
class World:
    """A service without processes: what its parts do to rows and files, one step at a time."""

    store: Store
    library: Library
    collector: Collector
    folder: object
    running: list[tuple[Claim, Output | None]] = field(default_factory=list)
    count: int = 0

    @classmethod
    def of(cls, store: Store, root: str, tmp_path) -> "World":
        settings = Settings(data_dir=tmp_path / "data", artifact_url=root, artifact_days=1e-9)
        return cls(store, Library(root), Collector(settings, store), tmp_path)

    @property
    def outputs(self) -> Outputs:
        return Outputs(self.library, self.store.folders)

    def publish(self, content: str, kind: str = "model") -> Output:
        self.count += 1
        made = self.folder / f"made-{threading.get_ident()}-{self.count}"
        made.mkdir()
        (made / "weights.bin").write_text(content)
        published = self.library.publish(made, kind, {})
        return Output(
            kind=kind,
            uri=published.uri,
            sha256=published.manifest.sha256,
            bytes=published.manifest.bytes,
        )

    def upload(self, content: str, name: str) -> Artifact:
        made = self.publish(content, "dataset")
        return self.store.artifacts.add_upload(self.outputs.check("dataset", made), name)[0]

    def submit(self, *, reads: str | None = None, after: str | None = None, name: str | None = None) -> Job:
        model = f"artifact:{reads}" if reads else f"job:{after}/model" if after else "hf:o/m"
        spec = parse_spec({"kind": "embed", "model": model, "texts": ["a"], "name": name, "max_attempts": 2})
        known = self.store.artifacts.lineage(parse_ref(model)) if reads else None
        new = NewJob(spec=spec, inputs={model: known} if known else {}, depends_on=[after] if after else [])
        return self.store.jobs.submit(new)[0]

    def finish(self, claim: Claim, output: Output) -> bool:
        """As a worker does. False where the files were removed before it looked."""
        for _ in range(100):
            try:
                made = self.outputs.check("model", output)
                self.store.leases.finish(claim, EndReason.SUCCEEDED, outputs=[made])
                return True
            except NotHeld:
                continue
            except Unavailable:
                time.sleep(0.01)
            except NotFound:
                self.store.leases.finish(claim, EndReason.STORAGE_FAILED)
                return False
        raise AssertionError("it was never held")

    def rows(self) -> list[Artifact]:
        with self.store.database.read() as session:
            return list(session.scalars(select(Artifact).order_by(Artifact.id)))

    def jobs(self) -> list[Job]:
        with self.store.database.read() as session:
            return list(session.scalars(select(Job).order_by(Job.id)))

    def check(self) -> None:
        """Every row has its files, and every job that has not ended has what it reads."""
        rows = {row.id: row for row in self.rows()}
        for row in rows.values():
            self.library.check(row.uri)
        for job in self.jobs():
            if JobState(job.state).final:
                continue
            for known in job.inputs.values():
                assert known.artifact in rows, f"{job.id} ({job.state}) reads what is gone"
            ref = parse_ref(job.spec["model"])
            if ref.scheme == "job" and self.store.jobs.get(ref.target).state == JobState.SUCCEEDED:
                made = [row for row in rows.values() if (row.job_id, row.output) == (ref.target, ref.output)]
                assert made, f"{job.id} ({job.state}) will read what is gone"

    def done(self, job: Job, output: str = "model", kind: str = "model", content: str = "x") -> Artifact:
        """Run the job, which must be the next, to its success."""
        claim = self.store.leases.claim(CPU, 600)
        assert claim is not None
        assert claim.job_id == job.id
        made = self.outputs.check(output, self.publish(content, kind))
        self.store.leases.finish(claim, EndReason.SUCCEEDED, outputs=[made])
        return self.store.artifacts.of_job(job.id)[0]

    def let_holds_expire(self) -> None:
        with self.store.database.write() as session:
            session.execute(update(UnreferencedFolder).values(until=self.store.database.time(-1)))


@pytest.fixture
def world(store, root, tmp_path, monkeypatch) -> World:
    monkeypatch.setattr(files, "REST_SECONDS", -1.0)  # gone as soon as somebody looks
    monkeypatch.setattr(collecting, "_UNKNOWN_DAYS", 0.0)
    return World.of(store, root, tmp_path)


class Chance:
    """Does to a world whatever comes to mind."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.drawn = world, random.Random(seed)
        self.pinned: set[str] = set()

    def step(self) -> None:
        often = [self.submit, self.claim, self.publish, self.finish, self.delete]
        seldom = [self.upload, self.die, self.pin, self.unpin, self.delete_job, self.remove, self.expire]
        self.drawn.choice([*often, *often, *seldom])()

    def pick(self, some):
        return self.drawn.choice(some) if some else None

    @property
    def content(self) -> str:
        return f"content {self.drawn.randrange(3)}"

    def upload(self) -> None:
        self.world.upload(self.content, f"name-{self.drawn.randrange(2)}")

    def submit(self) -> None:
        waiting = [job.id for job in self.world.jobs() if not JobState(job.state).final]
        after = self.pick(waiting) if self.drawn.random() < 0.3 else None
        some = self.pick(self.world.rows())
        reads = some.id if some and not after else None
        self.world.submit(reads=reads, after=after, name=self.drawn.choice([None, "a", "b"]))

    def claim(self) -> None:
        if claim := self.world.store.leases.claim(CPU, 600):
            self.world.running.append((claim, None))

    def publish(self) -> None:
        if self.world.running:
            index = self.drawn.randrange(len(self.world.running))
            self.world.running[index] = self.world.running[index][0], self.world.publish(self.content)

    def finish(self) -> None:
        if item := self.pick([item for item in self.world.running if item[1]]):
            self.world.running.remove(item)
            self.world.finish(*item)

    def die(self) -> None:
        if self.world.running:
            claim, _ = self.world.running.pop()
            self.world.store.leases.finish(claim, EndReason.PROCESS_DIED)
            with self.world.store.database.write() as session:
                session.execute(update(Job).values(not_before=Job.created_at))

    def pin(self) -> None:
        if some := self.pick(self.world.rows()):
            self.pinned.add(self.world.store.retention.pin(some.id).id)

    def unpin(self) -> None:
        if self.pinned:
            self.world.store.retention.pin(self.pinned.pop(), pinned=False)

    def delete(self) -> None:
        if some := self.pick(self.world.rows()):
            self.world.store.retention.delete_unless_needed(some.id)

    def delete_job(self) -> None:
        if some := self.pick(self.world.jobs()):
            with contextlib.suppress(Conflict):
                self.world.store.retention.delete_job(some.id)

    def remove(self) -> None:
        list(self.world.collector.remove_folders())

    def expire(self) -> None:
        self.world.let_holds_expire()
        list(self.world.collector.collect(unknown=True))


@pytest.mark.parametrize(("root", "seed"), [("files", 0), ("files", 1), ("s3", 2)], indirect=["root"])
def test_nothing_that_something_needs_is_deleted_and_nothing_else_stays(world, seed):
    chance = Chance(world, seed)
    for _ in range(150):
        chance.step()
        world.check()
        assert chance.pinned <= {row.id for row in world.rows()}

    # In the end everybody is done, and everything is deleted: the storage is empty.
    for claim, _ in world.running:
        world.store.leases.finish(claim, EndReason.BAD_DATA)
    for job in reversed(world.jobs()):
        if not JobState(world.store.jobs.get(job.id).state).final:
            world.store.jobs.cancel(job.id)
    for artifact in chance.pinned:
        world.store.retention.pin(artifact, pinned=False)
    for job in reversed(world.jobs()):
        world.store.retention.delete_job(job.id)
    for row in world.rows():
        world.store.retention.delete_artifact(row.id)
    world.let_holds_expire()
    list(world.collector.collect(unknown=True))
    world.let_holds_expire()
    list(world.collector.collect())
    assert list(world.library.folders()) == []
    with world.store.database.read() as session:
        assert session.scalars(select(UnreferencedFolder)).all() == []


def check_row(world: World, job_id: str) -> None:
    """What a job has just made has its files, unless it is deleted already."""
    for artifact in world.store.artifacts.of_job(job_id):
        try:
            world.library.check(artifact.uri)
        except NotFound:
            with pytest.raises(NotFound):
                world.store.artifacts.get(artifact.id)


@pytest.mark.parametrize("root", ["files"], indirect=True)
def test_equal_content_is_published_and_removed_at_the_same_time(world):
    """Threads make the same content while others delete it: a row always has its files."""
    until, errors = time.monotonic() + 4, []

    def make() -> None:
        while time.monotonic() < until:
            world.submit(name="same")
            claim = world.store.leases.claim(CPU, 600)
            if claim is None:
                continue
            if world.finish(claim, world.publish("the same")):
                check_row(world, claim.job_id)

    def remove() -> None:
        while time.monotonic() < until:
            for row in world.rows():
                world.store.retention.delete_unless_needed(row.id)
            list(world.collector.remove_folders())

    def guarded(work) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (make, make, remove, remove)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    world.check()


@pytest.fixture
def small(store, tmp_path, monkeypatch) -> World:
    """With files, whatever the database."""
    monkeypatch.setattr(files, "REST_SECONDS", -1.0)
    return World.of(store, (tmp_path / "storage").as_uri(), tmp_path)


def test_what_a_job_reads_or_will_read_stays_until_it_has_ended(small):
    uploaded = small.upload("rows", "rows")
    reader = small.submit(reads=uploaded.id)
    with pytest.raises(Conflict, match=rf"job {reader.id} \(queued\) reads it"):
        small.store.retention.delete_artifact(uploaded.id)
    child = small.submit(after=reader.id)
    made = small.done(reader)
    with pytest.raises(Conflict, match=f"job {child.id} .* depends on the job that made it"):
        small.store.retention.delete_artifact(made.id)
    with pytest.raises(Conflict, match=f"Job {child.id} .* depends on it"):
        small.store.retention.delete_job(reader.id)
    with pytest.raises(Conflict, match="only ended jobs"):
        small.store.retention.delete_job(child.id)
    small.store.jobs.cancel(child.id)
    small.store.retention.delete_artifact(uploaded.id)
    small.store.retention.delete_job(reader.id)
    with pytest.raises(NotFound):
        small.store.artifacts.get(made.id)
    assert [job.id for job in small.jobs()] == [child.id]


def test_embeddings_keep_the_model_that_a_search_needs(small):
    model = small.done(small.submit(name="encoder"))
    job = small.submit(reads=model.id)
    made = small.done(job, "embeddings", "embeddings")
    with pytest.raises(Conflict, match=f"embeddings {made.id} cannot be used without it"):
        small.store.retention.delete_artifact(model.id)
    small.store.retention.delete_artifact(made.id)
    small.store.retention.delete_artifact(model.id)


def test_a_pin_holds_and_a_second_one_changes_nothing(small):
    uploaded = small.upload("rows", "rows")
    first = small.store.retention.pin(uploaded.id).pinned_at
    assert small.store.retention.pin(uploaded.id).pinned_at == first
    with pytest.raises(Conflict, match="it is pinned"):
        small.store.retention.delete_artifact(uploaded.id)
    small.store.retention.pin(uploaded.id, pinned=False)
    small.store.retention.delete_artifact(uploaded.id)
    with pytest.raises(NotFound):
        small.store.retention.pin(uploaded.id)


def test_by_age_only_what_is_no_newest_version_goes(small):
    """Of outputs: uploads stay, and so does what a name means."""
    older, newer = (small.done(small.submit(name="encoder"), content=text) for text in ("1", "2"))
    unnamed, uploaded = small.done(small.submit(), content="3"), small.upload("rows", "rows")
    old = small.store.retention.expired(artifact_days=1e-9, checkpoint_days=None)
    assert [artifact.id for artifact in old] == [older.id, unnamed.id]
    assert small.store.retention.expired(artifact_days=1, checkpoint_days=1) == []
    assert small.store.retention.expired(artifact_days=None, checkpoint_days=1e-9) == []
    gone = [item for item in small.collector.collect() if item.what == "model"]
    assert len(gone) == 2
    assert {row.id for row in small.rows()} == {newer.id, uploaded.id}


def test_what_was_deleted_is_not_reused_and_lineage_says_so(small):
    uploaded = small.upload("rows", "rows")
    job = small.submit(reads=uploaded.id)
    made = small.done(job)
    assert small.store.lineage.look(made, EVERYTHING).whole_above
    small.store.retention.delete_artifact(uploaded.id)
    assert not small.store.lineage.look(made, EVERYTHING).whole_above
    with small.store.database.write() as session:
        session.execute(update(Job).where(Job.id == job.id).values(result_key="k" * 64))
    small.store.jobs.submit(NewJob(spec=parse_spec(job.spec), reuse=True))
    claim = small.store.leases.claim(CPU, 600)
    assert small.store.reuse.begin(claim, None, "k" * 64).equal.job_id == job.id
    small.store.retention.delete_artifact(made.id)
    assert small.store.reuse.begin(claim, None, "k" * 64).equal is None


def test_a_pipeline_goes_as_a_whole(small):
    specs = {"one": {"kind": "embed", "model": "hf:o/m", "texts": ["a"]}}
    jobs = [NewJob(spec=parse_spec(spec), stage=name) for name, spec in specs.items()]
    pipeline, _ = small.store.pipelines.create(None, {}, list(specs), jobs, idempotency=("key", "0" * 64))
    [job] = small.jobs()
    with pytest.raises(Conflict, match="only ended"):
        small.store.retention.delete_pipeline(pipeline.id)
    made = small.done(job)
    with pytest.raises(Conflict, match=f"belongs to pipeline {pipeline.id}"):
        small.store.retention.delete_job(job.id)
    small.store.retention.pin(made.id)
    with pytest.raises(Conflict, match="pinned"):
        small.store.retention.delete_pipeline(pipeline.id)
    small.store.retention.pin(made.id, pinned=False)
    small.store.retention.delete_pipeline(pipeline.id)
    assert small.jobs() == []
    assert small.rows() == []
    with pytest.raises(NotFound):
        small.store.pipelines.get(pipeline.id)


def test_a_job_cannot_begin_to_read_what_was_just_deleted(small):
    uploaded = small.upload("rows", "rows")
    reference = f"artifact:{uploaded.id}"
    known = small.store.artifacts.lineage(parse_ref(reference))
    small.store.retention.delete_artifact(uploaded.id)
    spec = parse_spec({"kind": "embed", "model": reference, "texts": ["a"]})
    with pytest.raises(NotFound, match="Deleted meanwhile"):
        small.store.jobs.submit(NewJob(spec=spec, inputs={reference: known}))


def checkpoint(step: int, attempt: int = 1) -> NewArtifact:
    uri = f"file:///{attempt}/{step}"
    told = {"metadata": {"step": step, "attempt": attempt}}
    sha256 = hashlib.sha256(uri.encode()).hexdigest()
    return NewArtifact(f"checkpoint@{step}", "checkpoint", uri, sha256, 1, told)


TRAINING = {
    "kind": "train",
    "base_model": "o/m",
    "dataset": "hf:o/d",
    "checkpoint": {"keep": 1},
    "evaluation": {"datasets": ["hf:o/e"], "every_steps": 25, "early_stopping": {"metric": "ndcg@10"}},
}


def record(store, claim, *checkpoints, **values):
    """One batch: scores by step, and the checkpoints that came with them."""
    now = datetime.now(UTC)
    scores = [("ndcg@10", int(step[1:]), value, now) for step, value in values.items()]
    held = [held_by(store, one) for one in checkpoints]
    store.progress.record(claim, ProgressUpdate(metrics=scores, checkpoints=held))


def kept_steps(store, job_id):
    return [(one.step, one.best) for one in store.artifacts.checkpoints(store.jobs.get(job_id))]


def test_the_best_checkpoint_stays_though_all_come_in_one_batch(store):
    """After the database was away, say."""
    store.jobs.submit(NewJob(spec=parse_spec(TRAINING)))
    claim = store.leases.claim(CPU, 60)
    assert claim is not None
    batch = [checkpoint(step) for step in (25, 50, 75, 100)]
    record(store, claim, *batch, s25=0.1, s50=0.9, s75=0.2, s100=0.3)
    assert kept_steps(store, claim.job_id) == [(50, True), (100, False)]
    record(store, claim, checkpoint(125), s125=None)
    assert kept_steps(store, claim.job_id) == [(50, True), (125, False)]


def test_an_attempt_that_begins_anew_passes_the_checkpoints_before(store):
    store.jobs.submit(NewJob(spec=parse_spec(TRAINING)))
    claim = store.leases.claim(CPU, 60)
    assert claim is not None
    record(store, claim, checkpoint(400), s400=0.5)
    pinned = store.artifacts.checkpoints(store.jobs.get(claim.job_id))[0].artifact
    store.retention.pin(pinned.id)
    record(store, claim, checkpoint(10, attempt=2), s10=0.1)
    last = parse_ref(f"job:{claim.job_id}/checkpoint@last")
    assert store.artifacts.checkpoint(last).output == "checkpoint@10"
    store.retention.pin(pinned.id, pinned=False)
    record(store, claim, checkpoint(20, attempt=2), s20=0.2)
    assert [step for step, _ in kept_steps(store, claim.job_id)] == [20]


def test_a_job_whose_inputs_were_deleted_is_not_tried_again(small):
    uploaded = small.upload("rows", "rows")
    job = small.submit(reads=uploaded.id)
    claim = small.store.leases.claim(CPU, 60)
    small.store.leases.finish(claim, EndReason.BAD_DATA)
    small.store.retention.delete_artifact(uploaded.id)
    with pytest.raises(Conflict, match="what it reads is gone"):
        small.store.jobs.retry(job.id)


def test_the_newest_version_is_each_key_s_own(small):
    """Another key's later version does not make mine an old one."""
    mine = small.done(small.submit(name="encoder"), content="1")
    theirs = small.done(small.submit(name="encoder"), content="2")
    with small.store.database.write() as session:
        session.execute(update(Artifact).where(Artifact.id == theirs.id).values(owner="key_other"))
    assert mine.version == 1
    assert small.store.retention.expired(artifact_days=1e-9, checkpoint_days=None) == []
