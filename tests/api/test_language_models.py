"""Which endpoints and which keys a prepare job may name."""

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from core.errors import BadSpec
from core.language_model.endpoints import settle_endpoint
from core.language_model.rules import rules_for
from core.settings import Settings
from core.spec.parts.queries import LanguageModel
from migrations import upgrade
from tests.api.submitting import upload_rows


def post(http, endpoint, headers=None, **llm):
    spec = {
        "kind": "prepare",
        "source": "dataset:pairs",
        "queries": {"llm": {"endpoint": endpoint, "model": "m", **llm}},
    }
    return http.post("/jobs", json=spec, headers=headers or {})


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [
        ("https://api.example.org/v1", 201),
        ("http://127.0.0.1:11434/v1", 201),
        ("http://[::1]:11434/v1", 201),
        ("http://10.0.0.7/v1", 403),
        ("http://169.254.169.254/latest", 403),
        ("http://[fd00::1]/v1", 403),
        ("http://0.0.0.0/v1", 403),
        ("http://a:99999/v1", 422),
        ("http:///v1", 422),
        ("http://me@host/v1", 422),
    ],
)
def test_a_service_without_keys_calls_its_own_machine_and_public_addresses(http, endpoint, status):
    upload_rows(http)
    answer = post(http, endpoint)
    assert answer.status_code == status, answer.text
    if status == 403:
        assert "REASON_LLM_ENDPOINTS" in answer.json()["detail"]


def test_without_keys_any_variable_may_be_sent(http):
    upload_rows(http)
    assert post(http, "https://api.example.org/v1", api_key_env="MY_KEY").status_code == 201
    refused = post(http, "https://api.example.org/v1", api_key_env="sk-123")
    assert refused.status_code == 422


@pytest.fixture
def keyed(settings: Settings):
    """A service with a key, and the headers of it."""
    settings = settings.model_copy(
        update={
            "llm_endpoints": ["http://10.0.0.7:8000/v1=LOCAL_KEY", "https://api.openai.com/v1=OPENAI_API_KEY"]
        }
    )
    upgrade(settings.database_url)
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        made = client.post("/keys", json={"name": "k", "scopes": ["read", "submit", "admin"]}).json()
        yield client, {"Authorization": f"Bearer {made['key']}"}


@pytest.mark.parametrize(
    ("endpoint", "key", "status"),
    [
        ("https://api.example.org/v1", None, 201),
        ("https://api.example.org/v1", "OPENAI_API_KEY", 403),
        ("https://api.openai.com/v1", "OPENAI_API_KEY", 201),
        ("https://api.openai.com/v1/", "OPENAI_API_KEY", 201),
        ("https://api.openai.com/v1", "AWS_SECRET_ACCESS_KEY", 403),
        ("http://10.0.0.7:8000/v1", "LOCAL_KEY", 201),
        ("http://10.0.0.7:8000/v1", "OPENAI_API_KEY", 403),
        ("http://10.0.0.7:9000/v1", None, 403),
        ("http://127.0.0.1:11434/v1", None, 403),
    ],
)
def test_with_keys_the_operators_list_counts(keyed, endpoint, key, status):
    http, headers = keyed
    http.headers.update(headers)
    upload_rows(http)
    more = {"api_key_env": key} if key else {}
    answer = post(http, endpoint, headers, **more)
    assert answer.status_code == status, answer.text


def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_called(settings):
    rules = rules_for(settings, "key_1")
    endpoint = settle_endpoint(LanguageModel(endpoint="http://localhost:1/v1", model="m"), rules)
    assert not endpoint.permits("127.0.0.1")
    assert endpoint.permits("8.8.8.8")
    with pytest.raises(BadSpec, match="OPENAI_API_KEY may not be sent"):
        settle_endpoint(
            LanguageModel(endpoint="http://localhost:1/v1", model="m", api_key_env="OPENAI_API_KEY"), rules
        )
    allowed = settings.model_copy(update={"webhook_private_addresses": True})
    endpoint = settle_endpoint(
        LanguageModel(endpoint="http://localhost:1/v1", model="m"), rules_for(allowed, "key_1")
    )
    assert endpoint.permits("10.1.2.3")
