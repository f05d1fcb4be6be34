"""The routers of all pages."""

from api.pages import artifacts, assets, jobs, pipelines, queue, signing_in

PAGES = [module.router for module in (jobs, pipelines, artifacts, queue, signing_in, assets)]
