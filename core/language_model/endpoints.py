"""Which endpoints a job may call, and which key it may send there."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import BadSpec
from core.jobs.protocol import EndpointRules
from core.spec.parts.queries import LanguageModel
from core.spec.requests import is_public_address


@dataclass(frozen=True)
class Endpoint:
    """An endpoint with the right to call it. The key itself is read for each use and stored nowhere."""

    url: str
    rules: EndpointRules
    key_name: str | None = None

    def permits(self, address: str) -> bool:
        """Whether the endpoint may be at this IP address."""
        if self._is_listed or self.rules.private == "all" or is_public_address(address):
            return True
        return self.rules.private == "loopback" and ipaddress.ip_address(address).is_loopback

    @property
    def _is_listed(self) -> bool:
        return any(_split(entry)[0] == self.url for entry in self.rules.allowed)

    def headers(self, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Raises `BadSpec` if the variable that holds the key is not set."""
        if self.key_name is None:
            return {}
        key = environment.get(self.key_name, "").strip()
        if not key:
            raise BadSpec(
                f"queries.llm.api_key_env: the environment variable {self.key_name} is not set where the job "
                "runs"
            )
        if not key.isascii() or not key.isprintable():
            raise BadSpec(f"queries.llm.api_key_env: the value of {self.key_name} cannot be sent in a header")
        return {"Authorization": f"Bearer {key}"}

    def refusal(self, host: str) -> str:
        """The sentence for an address that is not permitted."""
        return (
            f"queries.llm.endpoint: {host} leads to a private address. The operator allows it with "
            f"REASON_LLM_ENDPOINTS={self.url}"
        )


def settle_endpoint(asked: LanguageModel, rules: EndpointRules) -> Endpoint:
    """The endpoint of a spec. Raises `BadSpec` for a key that may not be sent to it."""
    url, name = asked.endpoint, asked.api_key_env
    if name is not None and not rules.any_key and (url, name) not in map(_split, rules.allowed):
        raise BadSpec(
            f"queries.llm.api_key_env: {name} may not be sent to {url}. The operator allows it with "
            f"REASON_LLM_ENDPOINTS={url}={name}"
        )
    return Endpoint(url, rules, name)


def _split(entry: str) -> tuple[str, str | None]:
    """``URL`` or ``URL=VARIABLE``. A URL may have "=" in its path."""
    url, _, name = entry.strip().rpartition("=")
    if not url or not _VARIABLE.fullmatch(name.strip()):
        url, name = entry.strip(), ""
    return url.strip().rstrip("/"), name.strip() or None


_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
