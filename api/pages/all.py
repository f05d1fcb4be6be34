"""The routers of all pages."""

from api.pages import artifacts, assets, jobs, new, pipelines, queries, queue, settings, signing_in, trying

_ROOMS = (jobs, new, pipelines, artifacts, queries, queue, settings, signing_in, trying, assets)
PAGES = [module.router for module in _ROOMS]
