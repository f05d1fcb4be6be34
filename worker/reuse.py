"""Before a job runs: what its result depends on, and whether another job has made that result."""

from collections.abc import Callable
from dataclasses import dataclass, field

from core.errors import StaleLease
from core.jobs.hosts import Gpu
from core.origin.code import is_code_unchanged
from core.origin.contents import Contents
from core.origin.key import find_origin, result_key
from core.settings import Settings
from core.spec.stored import read_stored_spec
from core.store.attempts.leases import Claim
from core.store.attempts.reuse import Beginning, ReuseStore
from worker.supervisor import Lease


class _Asked(Exception):
    """Somebody wants the job to stop."""


@dataclass(frozen=True)
class Begun:
    """``contents``: of the job's inputs when it began; None where nobody looked."""

    beginning: Beginning = field(default_factory=Beginning)
    contents: Contents | None = None

    def inputs_changed(self) -> bool:
        """Whether the inputs, or the code, are no longer what they were at the beginning."""
        if self.contents is None:
            return False
        return not (is_code_unchanged() and self.contents.unchanged())


class Reuse:
    """Looks at claimed jobs for one worker."""

    def __init__(self, settings: Settings, store: ReuseStore, gpus: list[Gpu]) -> None:
        self._settings, self._store = settings, store
        self._names = {gpu.uuid: gpu.name for gpu in gpus}

    def begin(self, claim: Claim, lease: Lease, shutting_down: Callable[[], bool]) -> Begun:
        """Read the job's inputs, and decide with the store. Raises `StaleLease` and `InvalidRequest`.

        A job that is asked to stop meanwhile is left to its supervisor, who tells it.
        """

        def check_stop() -> None:
            if lease.lost.is_set():
                raise StaleLease(f"Job {claim.job_id}: the lease of attempt {claim.attempt} is lost")
            if lease.requests.cancel or lease.requests.pause or shutting_down():
                raise _Asked

        spec = read_stored_spec(claim.spec, claim.spec_version).spec
        try:
            contents = Contents(
                spec.find_references(),
                claim.inputs,
                offline=self._settings.offline,
                check_stop=check_stop,
            )
        except _Asked:
            return Begun(self._store.begin(claim, None, None))
        origin = find_origin(
            claim.kind,
            contents.found,
            device=", ".join(sorted(self._names.get(uuid, "gpu") for uuid in claim.gpus)) or "cpu",
            processes=max(1, len(claim.gpus)),
            trust_remote_code=self._settings.trust_remote_code,
        )
        key = result_key(spec, origin) if is_code_unchanged() else None
        return Begun(self._store.begin(claim, origin, key), contents)
