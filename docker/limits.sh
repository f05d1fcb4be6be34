# Limits for docker/test.sh, which sources this file: no command that waits for another process may wait for ever.
#
# `docker`, `curl` and whatever runs under `limited` are ended after their limit, with a message that names the command.

exec 3>&2 # messages about limits are shown even where a command's own output is discarded
limit=300 # seconds for one docker or compose command; a caller may set another one with `local limit=...`

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

limited() { # SECONDS COMMAND...: ends the command after so many seconds
    local code=0 begun=$SECONDS
    timeout --foreground --kill-after=10 "$@" || code=$?
    if [ $code -ne 0 ] && [ $((SECONDS - begun)) -ge "$1" ]; then echo "no end within $1 s: ${*:2}" >&3; fi
    return $code
}

docker() { limited "$limit" docker "$@"; }
curl() { command curl --max-time 30 "$@"; }

until_true() { # SECONDS COMMAND...: tries a command every half second
    local seconds=$1 end=$((SECONDS + $1)) limit=$(($1 < 30 ? $1 : 30))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "this did not come true within $seconds s: $*"
        sleep 0.5
    done
}
