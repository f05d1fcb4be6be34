"""Models over HTTP: sent, checked, refused with the file's name, found by name and version."""

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from migrations import upgrade
from tests.tiny import make_static


@pytest.fixture(scope="module")
def static(tmp_path_factory) -> Path:
    return make_static(tmp_path_factory.mktemp("models") / "static")


def tarred(folder: Path, name: str = "model") -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        archive.add(folder, arcname=name)
    return body.getvalue()


def zipped(folder: Path) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return body.getvalue()


def send(http: TestClient, body: bytes, name: str = "mine", **params):
    return http.post("/models", params={"name": name, **params}, content=body)


def send_rows(http: TestClient, path: Path):
    return http.post("/datasets", params={"name": "rows"}, content=path.read_bytes())


def test_a_model_is_sent_found_and_named_by_jobs(http, tiny_model, pairs_file):
    answer = send(http, tarred(tiny_model), filename="model.tar.gz")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["Location"] == f"/models/{made['id']}"
    assert (made["kind"], made["name"], made["version"], made["job_id"]) == ("model", "mine", 1, None)
    assert (made["metadata"]["family"], made["metadata"]["architectures"]) == ("dense", ["BertModel"])
    for name in (made["id"], "mine", "mine@1"):
        assert http.get(f"/models/{name}").json()["id"] == made["id"]
    assert http.get("/models/mine@2").status_code == 404
    assert http.get("/datasets/mine").status_code == 404
    assert [item["id"] for item in http.get("/models").json()["items"]] == [made["id"]]
    body = http.get(f"/artifacts/{made['id']}/files/config.json").content
    assert body == (tiny_model / "config.json").read_bytes()
    again = send(http, zipped(tiny_model))
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    assert send_rows(http, pairs_file).status_code == 201
    spec = {"kind": "train", "base_model": "model:mine", "dataset": "dataset:rows"}
    job = http.post("/jobs", json=spec)
    assert job.status_code == 201, job.text
    assert job.json()["inputs"]["model:mine"]["artifact"] == made["id"]
    missing = http.post("/jobs", json={**spec, "base_model": "model:other"})
    assert missing.status_code == 404


def test_static_embeddings_can_be_estimated_and_sent(http, static, pairs_file):
    assert send(http, tarred(static), "static").status_code == 201
    assert send_rows(http, pairs_file).status_code == 201
    spec = {"kind": "train", "base_model": "model:static", "dataset": "dataset:rows"}
    found = http.post("/jobs/estimate", json=spec)
    assert found.status_code == 200, found.text
    assert found.json()["memory"]["total"] > 0


def broken(tiny_model: Path, folder: Path, change) -> bytes:
    shutil.copytree(tiny_model, folder)
    change(folder)
    return tarred(folder)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _foreign(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "auto_map": {"AutoModel": "code.Model"}}))


FAULTS = {
    "cut weights": (_cut, "model.safetensors has "),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
    "a pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "pickled weights (pytorch_model.bin)",
    ),
    "no transformer": (lambda at: (at / "config.json").unlink(), "config.json of its transformer"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    "no pooling": (lambda folder: shutil.rmtree(folder / "1_Pooling"), "1_Pooling/config.json"),
    "foreign code": (_foreign, "contains its own code (code.Model)"),
    "no configuration": (
        lambda folder: [(folder / name).unlink() for name in ("config.json", "modules.json")],
        "has neither config.json nor modules.json",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_no_job_could_load_is_refused_with_the_file(http, tiny_model, tmp_path, fault, settings):
    change, words = FAULTS[fault]
    answer = send(http, broken(tiny_model, tmp_path / "broken", change))
    assert answer.status_code == 422
    assert words in answer.json()["detail"], answer.text
    assert http.get("/models").json()["items"] == []
    assert not list((settings.data_dir / "uploads").iterdir())


def test_pickles_beside_the_weights_are_left_out_and_named(http, tiny_model, tmp_path):
    body = broken(tiny_model, tmp_path / "both", lambda at: (at / "pytorch_model.bin").write_bytes(b"cos\n"))
    made = send(http, body).json()
    assert made["metadata"]["left_out"] == ["pytorch_model.bin"]
    assert "pytorch_model.bin" not in [entry["path"] for entry in made["files"]]


@pytest.mark.parametrize(
    ("body", "words"),
    [(b'{"a": 1}\n', "is not an archive"), (b"PK\x03\x04nonsense", "is not a readable archive")],
)
def test_what_is_no_archive_is_refused(http, body, words):
    answer = send(http, body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_an_entry_that_leads_out_is_refused(http):
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../config.json"))
    answer = send(http, body.getvalue())
    assert answer.status_code == 422
    assert "leads out of its folder" in answer.json()["detail"]


def test_what_a_desktop_adds_is_no_part_of_a_model(http, tiny_model, tmp_path):
    first = send(http, tarred(tiny_model)).json()

    def clutter(folder: Path) -> None:
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / "__MACOSX").mkdir()
        (folder / "__MACOSX" / "._config.json").write_bytes(b"x")

    again = send(http, broken(tiny_model, tmp_path / "mac", clutter))
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    other = send(http, broken(tiny_model, tmp_path / "mac2", clutter), "other").json()
    assert other["metadata"]["ignored"] == [".DS_Store", "__MACOSX/._config.json"]


def test_names_of_ids_are_refused(http, tiny_model):
    assert send(http, tarred(tiny_model), "art_mine").status_code == 422


def test_a_model_may_be_larger_than_other_bodies(settings, tmp_path):
    folder = make_static(tmp_path / "large", dimension=4000)
    body = tarred(folder)
    assert len(body) > settings.max_body_bytes
    upgrade(settings.database_url)
    with TestClient(create_app(settings)) as http:
        assert send(http, body).status_code == 201
    with TestClient(create_app(settings.model_copy(update={"max_upload_bytes": 2_000_000}))) as http:
        assert send(http, b"x" * 2_000_001).status_code == 413
