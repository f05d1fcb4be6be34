"""The routers of all pages."""

from api.pages import artifacts, assets, jobs, new, pipelines, queue, settings, signing_in, trying

PAGES = [
    module.router for module in (jobs, new, pipelines, artifacts, queue, settings, signing_in, trying, assets)
]
