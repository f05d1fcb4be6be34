"""The dashboard in a real browser: live, by keyboard, on a phone, and nothing from elsewhere."""

import re
import time

from playwright.sync_api import Page, expect

from core.jobs.events import Event, Metrics, PhaseChange, Progress
from core.jobs.reasons import EndReason
from core.spec import parse_spec
from core.store.attempts.leases import Capacity
from core.store.attempts.progress import ProgressUpdate
from core.store.new_jobs import NewJob
from core.store.schema.access import Access
from tests.specs import MINIMAL


def submit(store, name: str, **spec) -> str:
    made = parse_spec({**MINIMAL["train"], "name": name, **spec})
    owner = store.keys.all()[0].id
    return store.jobs.submit(NewJob(spec=made), access=Access(owner))[0].id


def measured(step: int) -> ProgressUpdate:
    event = Event.of(Metrics(step=step, values={"loss": 1 / step}))
    told = Event.of(Progress(fraction=step / 100, step=step, total_steps=100, eta_seconds=100.0 - step))
    return ProgressUpdate(
        events=[event, told], metrics=[("loss", step, 1 / step, event.at)], latest={"loss": 1 / step}
    )


def test_a_job_is_watched_from_its_first_step_to_its_end(watched: Page, store, target):
    job = submit(store, "watched")
    claim = store.leases.claim(Capacity("w"), 60)
    assert claim.job_id == job
    store.progress.record(claim, measured(1))
    watched.goto(f"{target.url}/ui/jobs/{job}")
    loss = watched.locator("[data-metric=loss] dd")
    expect(loss).to_have_text("1")
    for step in range(2, 40):
        store.progress.record(claim, measured(step))
    expect(loss).to_have_text("0.02564", timeout=10_000)
    expect(watched.locator("#step")).to_have_text("step 39 of 100, 1 min 1 s left")
    expect(watched.locator("#charts canvas")).to_have_count(1)
    phase = Event.of(PhaseChange(phase="evaluating"))
    store.progress.record(
        claim, ProgressUpdate(events=[phase], phase="evaluating", log="a line of the log\n")
    )
    expect(watched.locator(".timeline")).to_contain_text("evaluating", timeout=10_000)
    expect(watched.locator("#log")).to_contain_text("a line of the log", timeout=10_000)
    watched.get_by_label("Find").fill("LINE")
    expect(watched.locator("#log mark")).to_have_text("line")
    store.leases.finish(claim, EndReason.SUCCEEDED)
    expect(watched.locator("h1 .state")).to_have_text("succeeded", timeout=10_000)
    expect(watched.locator("#bar")).to_have_count(0)


def test_buttons_call_the_api_and_tell_what_it_refuses(watched: Page, store, target):
    job = submit(store, "stopped")
    watched.goto(f"{target.url}/ui/jobs/{job}")
    watched.get_by_role("button", name="Pause").click()
    expect(watched.locator("h1 .state")).to_have_text("paused")
    store.jobs.resume(job, Access())  # by somebody else, meanwhile
    watched.get_by_role("button", name="Resume").click()
    expect(watched.get_by_role("alert")).to_contain_text(job)  # and Chromium's console: 409
    watched.on("dialog", lambda dialog: dialog.accept())
    watched.reload()
    watched.get_by_label("Priority").fill("7")
    watched.keyboard.press("Tab")
    expect(watched.get_by_label("Priority")).not_to_be_focused()
    deadline = time.monotonic() + 10
    while store.jobs.get(job).priority != 7:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    watched.get_by_role("button", name="Cancel").click()
    expect(watched.locator("h1 .state")).to_have_text("cancelled")


def test_chosen_jobs_are_cancelled_or_compared(watched: Page, store, target):
    jobs = [submit(store, f"job {number}", learning_rate=number * 1e-5) for number in (1, 2, 3)]
    watched.on("dialog", lambda dialog: dialog.accept())
    watched.goto(f"{target.url}/ui/jobs?search=job")
    compare = watched.get_by_role("button", name="Compare")
    expect(compare).to_be_disabled()
    watched.get_by_label("Choose job 1").check()
    watched.get_by_label("Choose job 2").check()
    compare.click()
    expect(watched.get_by_role("heading", level=1)).to_have_text("2 jobs side by side")
    expect(watched.get_by_role("row", name=re.compile("learning_rate"))).to_contain_text("2e-05")
    watched.go_back()
    watched.get_by_label("Choose job 3").check()
    watched.get_by_role("button", name="Cancel").click()
    expect(watched.locator(".state.cancelled").first).to_be_visible()
    assert store.jobs.get(jobs[2]).state == "cancelled"


def test_a_key_is_made_shown_once_and_revoked(watched: Page, store, target):
    watched.on("dialog", lambda dialog: dialog.accept())
    watched.get_by_role("link", name="Settings").click()
    watched.get_by_label("Name").fill("colleague")
    watched.get_by_label("submit").uncheck()
    watched.get_by_role("button", name="Create a key").click()
    secret = watched.locator("#shown-once code").inner_text()
    key = store.keys.check(secret)
    assert (key.name, key.scopes) == ("colleague", ["read"])
    row = watched.get_by_role("row", name="colleague")
    expect(row).to_contain_text("read")
    row.get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    assert store.keys.check(secret) is None
    watched.reload()
    expect(watched.locator("#shown-once")).to_be_hidden()


def test_by_keyboard_alone(watched: Page, store, target):
    submit(store, "found")
    watched.goto(f"{target.url}/ui/jobs")
    watched.keyboard.press("Tab")
    expect(watched.get_by_text("Skip to the content")).to_be_focused()
    for _ in range(30):
        if watched.evaluate("document.activeElement.name") == "search":
            break
        watched.keyboard.press("Tab")
    watched.keyboard.type("fou")
    watched.keyboard.press("Enter")
    expect(watched).to_have_url(re.compile("search=fou"))
    link = watched.get_by_role("link", name="found")
    for _ in range(40):
        if watched.evaluate("document.activeElement.textContent") == "found":
            break
        watched.keyboard.press("Tab")
    expect(link).to_be_focused()
    watched.keyboard.press("Enter")
    expect(watched.get_by_role("heading", level=1)).to_contain_text("found")


def test_on_a_phone_and_in_the_dark(watched: Page, store, target):
    job = submit(store, "a-name-that-is-quite-long-for-a-narrow-screen-and-goes-on")
    watched.set_viewport_size({"width": 375, "height": 700})
    watched.emulate_media(color_scheme="dark")
    for path in ("", "ui/queue", f"ui/jobs/{job}"):
        watched.goto(f"{target.url}/{path}")
        assert watched.evaluate("document.documentElement.scrollWidth") <= 375, path
        assert watched.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    watched.get_by_label("Light or dark").click()
    watched.reload()
    assert watched.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_signing_out(watched: Page, target):
    watched.get_by_role("button", name="Sign out").click()
    expect(watched.get_by_role("heading", level=1)).to_have_text("Sign in")
    watched.goto(f"{target.url}/ui/jobs")
    expect(watched.get_by_role("heading", level=1)).to_have_text("Sign in")
