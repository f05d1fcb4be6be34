"""References to object storage: looked at when a job is submitted, below REASON_ALLOWED_URLS alone."""

import boto3
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from migrations import upgrade


@pytest.fixture
def http(settings, s3_url):
    settings = settings.model_copy(update={"allowed_urls": [f"{s3_url}/data"]})
    upgrade(settings.database_url)
    with TestClient(create_app(settings), client=("127.0.0.1", 50000)) as client:
        yield client


def spec(dataset: str) -> dict:
    return {"kind": "train", "base_model": "org/name", "dataset": dataset}


def test_what_is_there_is_kept_with_its_checksum(http, s3_url):
    bucket, _, key = f"{s3_url}/data/rows.jsonl".removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b'{"query": "a", "positive": "b"}\n')
    made = http.post("/jobs", json=spec(f"{s3_url}/data/rows.jsonl"))
    assert made.status_code == 201, made.text
    [known] = made.json()["inputs"].values()
    assert (known["bytes"], known["files"], len(known["sha256"])) == (32, 1, 64)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("data/none.jsonl", 404, "Nothing lies at"),
        ("private/rows.jsonl", 403, "REASON_ALLOWED_URLS"),
        ("data/../private/rows.jsonl", 403, "REASON_ALLOWED_URLS"),
    ],
)
def test_others_are_refused_with_the_field(http, s3_url, path, status, words):
    answer = http.post("/jobs", json=spec(f"{s3_url}/{path}"))
    assert answer.status_code == status
    assert answer.json()["detail"].startswith("dataset")
    assert words in answer.json()["detail"]
