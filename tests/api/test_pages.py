"""The dashboard's pages: what they show, to whom, and what a page of another site cannot do."""

import re

import pytest

from api.pages.artifacts import dataset_of
from api.pages.graph import draw
from core.jobs.events import Event, Notice
from core.jobs.reasons import EndReason
from core.spec import parse_spec
from core.store.attempts.leases import Capacity
from core.store.attempts.progress import ProgressUpdate
from core.store.new_jobs import NewJob
from core.store.schema.access import Access
from tests.specs import MINIMAL


@pytest.fixture
def store(http):
    return http.app.state.store


def add(store, name=None, owner=None, **spec) -> str:
    made = parse_spec({**MINIMAL["embed"], "name": name, **spec})
    job, _ = store.jobs.submit(NewJob(spec=made), access=Access(owner))
    return job.id


def signed_in(http, scopes):
    _, secret = http.app.state.store.keys.create("somebody", scopes)
    answer = http.post("/ui/sign-in", data={"key": secret, "next": "ui/queue"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "../ui/queue")
    return answer


# -- what they show -----------------------------------------------------------------------------------


def test_the_list_filters_searches_and_pages(http, store):
    names = [
        add(store, f"run_{number:02}", labels={"team": "search"} if number == 7 else {})
        for number in range(60)
    ]
    first = http.get("/")
    assert first.status_code == 200
    assert "run_59" in first.text
    assert "run_09" not in first.text
    older = re.search(r'href="\./ui/jobs\?([^"]+)">Older', first.text)
    assert older
    assert "run_09" in http.get(f"/ui/jobs?{older[1].replace('&amp;', '&')}").text
    for query in ("search=RUN_07", f"search={names[7]}", "label=team:search"):
        shown = http.get(f"/ui/jobs?state=&kind=&{query}").text
        assert shown.count('name="job"') == 1
        assert names[7] in shown
    assert "No job is like this" in http.get("/ui/jobs?state=failed").text
    assert http.get("/jobs?search=run_07").json()["items"][0]["id"] == names[7]


def test_a_text_with_wildcards_is_searched_as_it_stands(http, store):
    add(store, "a_b")
    add(store, "axb")
    assert [job["name"] for job in http.get("/jobs?search=a_b").json()["items"]] == ["a_b"]
    assert http.get("/jobs?search=%25").json()["items"] == []


def test_a_job_that_has_failed_says_why_and_how_to_submit_it_again(http, store):
    job = add(store, "bad", texts=["it's"])
    claim = store.leases.claim(Capacity("worker"), 30)
    notice = Event.of(Notice(level="warning", message="two <b>rows</b>"))
    store.progress.record(claim, ProgressUpdate(events=[notice], log="one\ntwo\n"))
    store.leases.finish(claim, EndReason.BAD_DATA, "rows.jsonl:3: no query")
    page = http.get(f"/ui/jobs/{job}").text
    assert "rows.jsonl:3: no query" in page
    assert "two &lt;b&gt;rows&lt;/b&gt;" in page
    assert "one\ntwo" in page
    assert "max_attempts" not in page, "what is as by default is no part of the spec that is shown"
    assert f'data-call="POST jobs/{job}/retry"' in page
    assert http.post(f"/jobs/{job}/retry").status_code == 202


def test_specs_are_compared_field_by_field(http, store):
    one, other = add(store, "one", texts=["a"]), add(store, "other", texts=["a", "b"], priority=3)
    page = http.get(f"/ui/compare?job={one}&job={other}").text
    fields = re.findall(r'<th scope="row"><code>([^<]+)', page)
    assert set(fields) == {"name", "texts", "priority"}
    assert http.get(f"/ui/compare?job={one}").status_code == 400


def test_a_pipeline_is_a_graph_of_its_stages(http, store):
    answer = http.post("/pipelines", json={"name": "two", "stages": two_stages(http)})
    assert answer.status_code == 201, answer.text
    page = http.get(f"/ui/pipelines/{answer.json()['id']}").text
    for name, stage in answer.json()["stages"].items():
        assert f'aria-label="{name}: {stage["state"]}"' in page
        assert f"../../ui/jobs/{stage['job']}" in page
    assert "two" in http.get("/ui/pipelines").text


def two_stages(http):
    """The second reads what the first makes of a dataset that was sent."""
    rows = b'{"query": "a <b>", "positive": "c"}\n'
    assert http.post("/datasets?name=rows&filename=rows.jsonl", content=rows).status_code == 201
    made = {"kind": "prepare", "source": "dataset:rows"}
    return {"first": made, "second": {"kind": "prepare", "source": "stage:first/dataset", "seed": 1}}


def test_a_dataset_shows_its_rows_files_and_origin(http):
    two_stages(http)
    [dataset] = http.get("/datasets").json()["items"]
    assert "rows@1" in http.get("/ui/datasets").text
    page = http.get(f"/ui/artifacts/{dataset['id']}").text
    assert "<td>a &lt;b&gt;</td>" in page
    files = re.findall(r'href="\.\./\.\./(artifacts/[^"]+/files/[^"]+)"', page)
    assert files
    assert all(http.get(f"/{file}").status_code == 200 for file in files)
    assert 'aria-label="dataset rows@1"' in page
    assert http.put(f"/artifacts/{dataset['id']}/pin").status_code == 200
    assert "pinned" in http.get(f"/ui/artifacts/{dataset['id']}").text
    assert "There are none yet" in http.get("/ui/models").text


def test_settings_show_keys_to_administrators_alone(http, store):
    store.keys.create("root", ["admin"])
    signed_in(http, ["submit"])
    page = http.get("/ui/settings").text
    assert "root" not in page
    assert 'data-send="POST webhooks"' in page
    assert 'data-send="POST keys"' not in page


def test_boxes_stand_to_the_right_of_what_they_need():
    drawn = draw({"a": [], "b": ["a", "gone"], "c": ["b", "a"], "d": [], "loop": ["loop"]})
    places = {box.name: (box.x, box.y) for box in drawn.boxes}
    assert places["a"][0] < places["b"][0] < places["c"][0]
    assert places["a"][0] == places["d"][0] == places["loop"][0]
    assert len(set(places.values())) == 5
    assert len(drawn.lines) == 3
    assert max(box.x + box.width for box in drawn.boxes) <= drawn.width


@pytest.mark.parametrize(
    "path",
    ["/ui/jobs/job_1", "/ui/jobs/../../etc", "/ui/jobs/%00", "/ui/compare?job=x&job=y", "/ui/jobs?cursor=x"],
)
def test_what_is_not_there_is_a_page_that_says_so(http, path):
    answer = http.get(path)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"].startswith(("text/html", "application/problem+json"))


# -- to whom ------------------------------------------------------------------------------------------


def test_without_a_session_every_page_asks_to_sign_in_and_leads_back(http):
    http.app.state.store.keys.create("somebody", ["read"])
    answer = http.get("/ui/jobs?state=failed", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "../ui/sign-in?next=ui/jobs%3Fstate%3Dfailed"
    form = http.get("/ui/jobs?state=failed")
    assert 'value="ui/jobs?state=failed"' in form.text
    assert "wrong" not in form.text
    refused = http.post("/ui/sign-in", data={"key": "key_x.y", "next": ""})
    assert refused.status_code == 401
    assert "unknown or revoked" in refused.text


@pytest.mark.parametrize(
    "asked", ["https://evil.example", "//evil.example/x", "javascript:alert(1)", "\\\\evil"]
)
def test_signing_in_leads_to_no_other_site(http, asked):
    _, secret = http.app.state.store.keys.create("somebody", ["read"])
    answer = http.post("/ui/sign-in", data={"key": secret, "next": asked}, follow_redirects=False)
    assert answer.headers["location"] in ("../", "../evil.example/x")


def test_a_session_is_a_cookie_that_no_script_reads_and_ends_with_its_key(http, store):
    answer = signed_in(http, ["submit"])
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert http.get("/ui/queue").status_code == 200
    assert http.get("/jobs").status_code == 200
    store.keys.revoke(store.keys.all()[0].id)
    store.keys.create("another", ["read"])
    assert http.get("/jobs").status_code == 401


def test_signing_out_ends_the_session_for_whoever_has_kept_the_cookie(http):
    signed_in(http, ["read"])
    token = http.cookies["reason_session"]
    http.post("/ui/sign-out")
    http.cookies.set("reason_session", token)
    assert http.get("/jobs").status_code == 401


def test_who_may_only_read_sees_no_buttons(http, store):
    job = add(store)
    signed_in(http, ["read"])
    page = http.get(f"/ui/jobs/{job}").text
    assert "data-call" not in page
    assert "data-patch" not in page
    assert http.post(f"/jobs/{job}/cancel").status_code == 403


def test_who_may_submit_sees_buttons_of_its_own_jobs_alone(http, store):
    theirs = add(store, owner="key_other")
    signed_in(http, ["submit"])
    mine = add(store, owner=store.keys.all()[0].id)
    assert f"jobs/{mine}/cancel" in http.get(f"/ui/jobs/{mine}").text
    assert "data-call" not in http.get(f"/ui/jobs/{theirs}").text


# -- what another site cannot do ----------------------------------------------------------------------

_FROM_ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", _FROM_ELSEWHERE)
@pytest.mark.parametrize("keys", [False, True])
def test_a_page_of_another_site_changes_nothing(http, store, headers, keys):
    """Not with the cookie of who is signed in, and not where there are no keys: that trusts its machine."""
    job = add(store)
    if keys:
        signed_in(http, ["admin"])
    assert http.post(f"/jobs/{job}/cancel", headers=headers).status_code == 403
    assert store.jobs.get(job).state == "queued"
    assert http.post(f"/jobs/{job}/cancel", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 202


def test_a_key_in_the_header_needs_no_origin(http, store):
    job = add(store)
    _, secret = store.keys.create("script", ["admin"])
    headers = {"Authorization": f"Bearer {secret}", "Origin": "https://evil.example"}
    assert http.post(f"/jobs/{job}/cancel", headers=headers).status_code == 202


def test_pages_allow_no_inline_script_and_no_other_host(http, store):
    job = add(store, texts=["<script>alert(1)</script>"])
    for path in ("/", "/ui/queue", f"/ui/jobs/{job}"):
        answer = http.get(path)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=|style=|https?://(?!testserver)", answer.text)


def test_files_are_kept_by_browsers_until_they_change(http):
    page = http.get("/").text
    for name in ("style.css", "page.js", "htmx.js"):
        path = re.search(rf'"\./(ui/assets/[0-9a-f]+/{name})"', page)
        assert path, f"{name} is missing: make install fetches it"
        answer = http.get(f"/{path[1]}")
        assert "immutable" in answer.headers["cache-control"]
    assert http.get("/ui/assets/x/vendor.json").status_code == 404
    assert http.get("/ui/assets/x/..%2Frendering.py").status_code == 404


def test_a_proxy_may_serve_it_under_a_path(http, store):
    """Every address in a page is relative."""
    page = http.get(f"/ui/jobs/{add(store)}").text
    assert not re.search(r'(?:href|src|action|hx-get)="/', page)


def test_language_models_have_a_page_of_text(http):
    answer = http.get("/llms.txt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "- documents: From a folder" in answer.text
    assert "- train: " in answer.text
    assert "&#" not in answer.text


def test_forms_offer_every_field_and_only_those_of_their_recipe(http):
    train = http.get("/ui/new/train").text
    for name in ("base_model", "loss.temperature", "lora.r", "evaluation.holdout"):
        assert f'name="{name}"' in train
    assert 'name="retriever"' in http.get("/ui/new/reranker").text
    assert 'name="retriever"' not in http.get("/ui/new/documents").text
    assert 'name="llm.endpoint"' not in http.get("/ui/new/pairs").text
    assert http.get("/ui/new/nothing").status_code == 404


def test_a_dataset_shows_lengths_splits_and_what_was_left_out(http):
    rows = "".join(f'{{"query": "q {n}", "positive": "{"word " * n}end"}}\n' for n in range(30))
    made = http.post("/datasets", params={"name": "rows", "filename": "rows.jsonl"}, content=rows.encode())
    text = http.get(f"/ui/artifacts/{made.json()['id']}").text
    assert "Lengths in characters" in text
    assert '<td>train</td><td class="figure">30</td>' in text


def test_pages_of_prepared_datasets_count_kinds_and_reasons():
    asking = {"made": {"titles": 5}, "left_out": {"ambiguous": 2}}
    found = dataset_of({"splits": {"train": 5, "dev": 0}, "left_out": {"identical": 1}, "asking": asking})
    assert (found.splits, found.made) == ({"train": 5}, {"titles": 5})
    assert found.left_out == {"identical": 1, "ambiguous": 2}
    assert dataset_of({}).lengths == {}
