#!/usr/bin/env bash
# Runs a command with REASON_TEST_POSTGRES and REASON_TEST_REDIS set. Servers that answer on the usual ports
# are used (in databases of our own); otherwise private ones are started on free ports and stopped afterwards.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${here}/../.venv/bin/python
private=$(mktemp -d)
redis_pid=""
postgres_bin=""

stop() {
    [ -n "$redis_pid" ] && kill "$redis_pid" 2>/dev/null
    [ -n "$postgres_bin" ] && as_owner "$postgres_bin/pg_ctl" -D "$private/postgres" -m immediate stop >/dev/null 2>&1
    rm -rf "$private"
    return 0
}
trap stop EXIT

free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# PostgreSQL refuses to run as root.
as_owner() {
    if [ "$(id -u)" -eq 0 ]; then
        runuser -u "$(postgres_user)" -- "$@"
    else
        "$@"
    fi
}
postgres_user() { id -u postgres >/dev/null 2>&1 && echo postgres || echo nobody; }

answers_postgres() { "$python" -c 'import psycopg, sys; psycopg.connect(sys.argv[1], connect_timeout=2)' "$1" 2>/dev/null; }
answers_redis() { "$python" -c 'import redis, sys; redis.Redis.from_url(sys.argv[1], socket_timeout=2).ping()' "$1" 2>/dev/null; }
find_postgres() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }

if [ -z "${REASON_TEST_POSTGRES:-}" ]; then
    REASON_TEST_POSTGRES=postgresql://postgres@127.0.0.1:5432/postgres
    if ! answers_postgres "$REASON_TEST_POSTGRES"; then
        [ -n "$(find_postgres)" ] || bash "$here/system_packages.sh" postgresql
        postgres_bin=$(find_postgres)
        mkdir "$private/postgres" && chmod 755 "$private"
        [ "$(id -u)" -ne 0 ] || chown "$(postgres_user)" "$private/postgres"
        as_owner "$postgres_bin/initdb" -D "$private/postgres" -U postgres --auth=trust -E UTF8 >/dev/null
        port=$(free_port)
        as_owner "$postgres_bin/pg_ctl" -D "$private/postgres" -w -l "$private/postgres/log" \
            -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off" start >/dev/null
        REASON_TEST_POSTGRES=postgresql://postgres@127.0.0.1:$port/postgres
        echo "A private PostgreSQL runs on port $port."
    fi
fi
if [ -z "${REASON_TEST_REDIS:-}" ]; then
    REASON_TEST_REDIS=redis://127.0.0.1:6379/15
    if ! answers_redis "$REASON_TEST_REDIS"; then
        command -v redis-server >/dev/null || bash "$here/system_packages.sh" redis
        port=$(free_port)
        redis-server --port "$port" --bind 127.0.0.1 --save "" --appendonly no --dir "$private" >/dev/null &
        redis_pid=$!
        REASON_TEST_REDIS=redis://127.0.0.1:$port/15
        for _ in $(seq 50); do answers_redis "$REASON_TEST_REDIS" && break; sleep 0.1; done
        echo "A private Redis runs on port $port."
    fi
fi
# Pages are looked at in a real browser; where none can be had, those few tests are skipped and say so.
if [ -z "$(command -v chromium chromium-browser google-chrome | head -n 1)" ]; then
    bash "$here/system_packages.sh" chromium || echo "No Chromium: the tests of pages will be skipped."
fi
export REASON_TEST_POSTGRES REASON_TEST_REDIS
"$@"
