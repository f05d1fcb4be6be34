"""The operator's rules for endpoints. For the API and the worker: a job's process has no settings."""

from core.jobs.protocol import EndpointRules
from core.settings import Settings


def rules_for(settings: Settings, owner: str | None) -> EndpointRules:
    """The rules for the jobs of a key; None: of a service without keys.

    Such a service answers its own machine alone, so whoever calls it can reach the machine's ports and read
    its environment anyway.
    """
    private = "all" if settings.webhook_private_addresses else "loopback" if owner is None else "none"
    return EndpointRules(allowed=settings.llm_endpoints, private=private, any_key=owner is None)
