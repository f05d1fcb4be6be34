"""One function says what a job computes on; the table says what it answers."""

import warnings

import pytest

from core.data.sources.inputs import make_context
from core.errors import BadSpec, InvalidRequest
from core.jobs.protocol import RunRequest
from core.runtime.context import RunContext
from core.runtime.devices import choose_device, tell_cpu_fallbacks
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec


@pytest.mark.parametrize(
    ("asked", "gpus", "gpus_asked", "mps", "device"),
    [
        ("auto", 1, "auto", False, "cuda"),
        ("auto", 2, 2, True, "cuda"),
        ("auto", 0, "auto", True, "mps"),
        ("auto", 0, "auto", False, "cpu"),
        ("auto", 0, 0, True, "cpu"),  # resources.gpus: 0 switches Apple's GPU off as well
        ("cpu", 1, "auto", True, "cpu"),
        ("cpu", 0, 0, False, "cpu"),
        ("cuda", 1, 1, False, "cuda"),
        ("mps", 0, "auto", True, "mps"),
        ("mps", 0, 0, True, "mps"),  # named: what a kind of job has as its default does not count
        ("cuda", 0, "auto", True, None),
        ("mps", 1, "auto", False, None),
    ],
)
def test_the_device_of_a_job(asked, gpus, gpus_asked, mps, device):
    if device is None:
        with pytest.raises(BadSpec, match=f"device: {asked}"):
            choose_device(asked, gpus=gpus, gpus_asked=gpus_asked, mps=mps)
        return
    assert choose_device(asked, gpus=gpus, gpus_asked=gpus_asked, mps=mps) == device


TRAIN = {"kind": "train", "base_model": "a/b", "dataset": "file:/x"}
MINE = {"kind": "mine", "dataset": "file:/x"}


@pytest.mark.parametrize(
    ("spec", "gpus"),
    [
        (TRAIN, "auto"),
        ({**TRAIN, "device": "cpu"}, 0),
        ({**TRAIN, "device": "mps"}, 0),
        ({**TRAIN, "device": "cuda"}, 1),
        ({**TRAIN, "device": "cuda", "resources": {"gpus": 2}}, 2),
        ({**MINE, "device": "cuda"}, 1),
        (MINE, 0),
    ],
)
def test_a_device_asks_for_its_resources(spec, gpus):
    assert parse_spec(spec).resources.gpus == gpus
    # And once more, as a stored spec is read.
    assert parse_spec(parse_spec(spec).model_dump(mode="json")).resources.gpus == gpus


@pytest.mark.parametrize(
    ("device", "gpus", "words"), [("cuda", 0, "resources.gpus is 0"), ("cpu", 2, "no NVIDIA GPU")]
)
def test_a_device_against_its_resources_is_refused(device, gpus, words):
    with pytest.raises(InvalidRequest) as refused:
        parse_spec({**TRAIN, "device": device, "resources": {"gpus": gpus}})
    assert words in str([problem.message for problem in refused.value.problems])


def context(tmp_path, **request) -> RunContext:
    described = {"job_id": "x", "attempt": 1, "checkpoints": tmp_path, "cache": tmp_path, **request}
    return make_context(RunRequest(**described), tmp_path, RecordingReporter())


def test_a_context_knows_its_device_and_gives_another(tmp_path, monkeypatch):
    monkeypatch.setattr("core.runtime.context.mps_available", lambda: True)
    plain = context(tmp_path, spec=parse_spec(TRAIN).model_dump(mode="json"))
    assert (plain.device, plain.on("cpu").device, plain.device) == ("mps", "cpu", "mps")
    off = context(tmp_path, spec=parse_spec({**TRAIN, "resources": {"gpus": 0}}).model_dump(mode="json"))
    assert off.device == "cpu"
    assert context(tmp_path, spec={"kind": "train"}, gpus=["0"]).device == "cuda"  # as stored long ago


def test_operations_that_mps_lacks_are_told_once(monkeypatch):
    told, shown = [], []
    monkeypatch.setattr(warnings, "showwarning", lambda *arguments: shown.append(str(arguments[0])))
    tell_cpu_fallbacks(told.append)
    sentence = (
        "The operator 'aten::sort.values_stable' is not currently supported on the MPS backend and will fall "
        "back to run on the CPU."
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for message in (sentence, sentence, "something else"):
            warnings.showwarning(message, UserWarning, "x.py", 1)
    assert told == ["MPS has no aten::sort.values_stable: the CPU computes it, which is slower."]
    assert shown == ["something else"]
