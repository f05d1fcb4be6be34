"""Sessions of browsers: a key that was typed once, and a cookie that stands for it afterwards."""

import secrets

from sqlalchemy import delete, select

from core.store.fleet import hash_of_secret
from core.store.schema.database import Database
from core.store.schema.tables import ApiKey, BrowserSession

LASTS_SECONDS = 7 * 86_400


class SessionStore:
    """Only a token's hash is stored. A session ends with its time, its sign-out, or its key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, key_id: str) -> str:
        """Returns the token of a new session. Those that are over are removed."""
        token = secrets.token_urlsafe(32)
        with self._database.write() as session:
            session.execute(delete(BrowserSession).where(BrowserSession.ends_at <= self._database.time()))
            ends_at = session.scalar(select(self._database.time(LASTS_SECONDS)))
            session.add(BrowserSession(sha256=hash_of_secret(token), key_id=key_id, ends_at=ends_at))
        return token

    def key_of(self, token: str) -> ApiKey | None:
        """The key behind a session; None when the session is unknown or over, or its key revoked."""
        query = (
            select(ApiKey)
            .join(BrowserSession, BrowserSession.key_id == ApiKey.id)
            .where(
                BrowserSession.sha256 == hash_of_secret(token),
                BrowserSession.ends_at > self._database.time(),
                ApiKey.revoked_at.is_(None),
            )
        )
        with self._database.read() as session:
            return session.scalar(query)

    def close(self, token: str) -> None:
        """Closing twice is no error."""
        with self._database.write() as session:
            session.execute(delete(BrowserSession).where(BrowserSession.sha256 == hash_of_secret(token)))
