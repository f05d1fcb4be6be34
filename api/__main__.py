"""``python -m api``: the HTTP server. ``python -m api keys ...``: keys, straight in the database."""

import argparse
import contextlib
import errno
import json
import signal
import sys

import uvicorn
from pydantic import ValidationError

from api.app import create_app
from api.auth import is_loopback
from api.listener import open_listener
from core.errors import ReasonError
from core.runtime.orphans import end_with_parent
from core.settings import Settings
from core.spec.parse import problems_of
from core.spec.requests import NewKey
from core.store import open_store
from core.store.fleet import SCOPES
from migrations import is_current

_OLD_DATABASE = "the database has an older schema: run `reason db upgrade` first"


def serve(arguments: list[str]) -> int:
    """Run the HTTP server. Returns the exit status; a port in use is reported in one sentence."""
    parser = argparse.ArgumentParser(prog="reason api", epilog="example: reason api --port 8080")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.end_with_parent:
        end_with_parent(signal.SIGTERM)
    settings = Settings()
    store = open_store(settings)
    if not is_current(store.database):
        return _fail(_OLD_DATABASE)
    if not is_loopback(asked.host) and not store.keys.any_active():
        return _fail(
            f"without an API key the service accepts only loopback addresses, not {asked.host}. "
            "Create a key first: reason keys create NAME"
        )
    store.close()
    try:
        listener = open_listener(asked.host, asked.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _fail(
                f"port {asked.port} is in use, perhaps by another `reason serve`. Choose another --port."
            )
        return _fail(f"cannot listen on {asked.host}:{asked.port}: {error.strerror}")
    config = uvicorn.Config(
        create_app(settings),
        log_level=settings.log_level.lower(),
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    with contextlib.closing(listener):
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def keys(arguments: list[str]) -> int:
    """Manage keys in the database, without a running server: the first key is created this way."""
    parser = argparse.ArgumentParser(
        prog="reason keys", epilog="example: reason keys create ci --scopes read,submit"
    )
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="create a key; it is shown only once")
    create.add_argument("name")
    create.add_argument(
        "--scopes", default="read,submit", help=f"comma-separated list of {', '.join(SCOPES)}"
    )
    actions.add_parser("list", help="list all keys, without their secrets")
    actions.add_parser("revoke", help="revoke a key").add_argument("id")
    for action in actions.choices.values():
        action.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    opened = open_store(Settings())
    if not is_current(opened.database):
        return _fail(_OLD_DATABASE)
    store = opened.keys
    rows, secret = [], None
    match asked.action:
        case "create":
            scopes = [scope.strip() for scope in asked.scopes.split(",")]
            if unknown := set(scopes) - set(SCOPES):
                return _fail(f"unknown scope {', '.join(unknown)}; known: {', '.join(SCOPES)}")
            try:
                wanted = NewKey.model_validate({"name": asked.name, "scopes": scopes})
            except ValidationError as error:
                return _fail("; ".join(f"{found.path}: {found.message}" for found in problems_of(error)))
            row, secret = store.create(wanted.name, list(wanted.scopes))
            rows = [row]
        case "list":
            rows = store.all()
        case "revoke":
            rows = [store.revoke(asked.id)]
    for row in rows:
        if asked.json:
            print(json.dumps({"id": row.id, "name": row.name, "scopes": row.scopes, "key": secret}))
        else:
            state = "revoked" if row.revoked_at else "active"
            print(f"{row.id}  {row.name}  {','.join(row.scopes)}  {state}")
    if secret and not asked.json:
        print(f"\n{secret}\n\nThe key is shown only this once. For the client: export REASON_API_KEY=...")
    return 0


def _fail(sentence: str) -> int:
    print(f"reason: {sentence}", file=sys.stderr)
    return 2


def main() -> int:
    arguments = sys.argv[1:]
    try:
        return keys(arguments[1:]) if arguments[:1] == ["keys"] else serve(arguments)
    except ReasonError as error:
        return _fail(str(error))


if __name__ == "__main__":
    sys.exit(main())
