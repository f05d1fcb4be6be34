# A new database on the first start, with a password over TCP; then the server in our place.
set -euo pipefail
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    chown postgres "$PGDATA" && chmod 700 "$PGDATA"
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password && chown postgres /tmp/password
    setpriv --reuid postgres --regid postgres --clear-groups "$bin/initdb" --pgdata="$PGDATA" \
        --username="$POSTGRES_USER" --pwfile=/tmp/password --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=scram-sha-256 >/dev/null
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | setpriv --reuid postgres --regid postgres --clear-groups \
        "$bin/postgres" --single -D "$PGDATA" postgres >/dev/null
fi
install --directory --owner=postgres /var/run/postgresql
exec setpriv --reuid postgres --regid postgres --clear-groups "$bin/postgres" -D "$PGDATA" \
    -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql ${PGTZ:+-c "timezone=$PGTZ"}
