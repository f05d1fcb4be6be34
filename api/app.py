"""The application: store, queue, routes, errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from api import docs, errors, openapi, stream
from api.auth import Authenticator
from api.limits import BodyLimit
from api.monitoring import CallTimes, ServiceCollector
from api.pages.all import PAGES
from api.routes import (
    artifacts,
    datasets,
    fleet,
    health,
    jobs,
    models,
    pipelines,
    recipes,
    schedules,
    search,
    webhooks,
)
from api.scheduler import Scheduler
from api.searching import Searcher
from api.submission import wake
from api.throttle import Throttle
from core import __version__
from core.artifacts import Library
from core.queue.wakeups import Queue
from core.settings import Settings
from core.store import open_store

_DESCRIPTION = """
Fine-tune retrieval models on your own documents: **POST a job, poll `/jobs/<id>`, download a better model.**

Errors are `application/problem+json`; lists are pages `{items, next_cursor}`; times are UTC.
"""


_UPLOADS_AT_ONCE = 2
"""Uploads that are unpacked and read at once; others wait. Their threads are not those of other calls."""


def create_app(settings: Settings | None = None, throttle: Throttle | None = None) -> FastAPI:
    """A server on the settings' database and broker. ``throttle`` slows wrong keys down."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = app.state
        scheduler = Scheduler(settings, state.store, state.library, partial(wake, state.queue))
        scheduler.start()
        yield
        await anyio.to_thread.run_sync(scheduler.stop)
        await anyio.to_thread.run_sync(state.searcher.stop)
        state.store.close()

    app = FastAPI(
        title="reason",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.store = open_store(settings)
    app.state.authenticator = Authenticator(app.state.store, settings, throttle)
    app.state.queue = Queue(settings)
    app.state.library = Library(settings.artifact_url)
    app.state.searcher = Searcher(settings)
    app.state.uploads = anyio.CapacityLimiter(_UPLOADS_AT_ONCE)
    app.state.registry = CollectorRegistry()
    app.state.registry.register(ServiceCollector(app.state.store))
    errors.install(app)
    sent = dict.fromkeys(("/datasets", "/models"), settings.max_upload_bytes)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, by_path=sent)
    app.add_middleware(CallTimes, registry=app.state.registry)
    first = (health, docs, jobs, stream, pipelines, schedules, recipes)  # in the order of the documentation
    others = (artifacts, datasets, models, search, webhooks, fleet)
    routers = [module.router for module in (*first, *others)]
    for router in routers:
        app.include_router(router)
    for page in PAGES:
        app.include_router(page)
    app.state.routes = [route for router in routers for route in router.routes]
    openapi.install(app)
    return app
