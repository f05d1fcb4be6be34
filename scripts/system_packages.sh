#!/usr/bin/env bash
# Installs what pip cannot: venv | postgresql | redis | chromium. Debian and Ubuntu, as root; elsewhere it says what is missing.
set -euo pipefail

packages=()
for need in "$@"; do
    case "$need" in
        venv) packages+=(python3-venv) ;;
        postgresql) packages+=(postgresql) ;;
        redis) packages+=(redis-server) ;;
        chromium) packages+=(chromium) ;;
        *) echo "system_packages: unknown: $need" >&2; exit 2 ;;
    esac
done
if ! command -v apt-get >/dev/null; then
    echo "Please install: $*" >&2
    exit 1
fi
run=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "Please install (as root): apt-get install ${packages[*]}" >&2
        exit 1
    fi
    run=(sudo -n)
fi
export DEBIAN_FRONTEND=noninteractive
# The packages' own servers are not wanted: ours run on free ports, from folders of their own.
"${run[@]}" apt-get -qq update
"${run[@]}" apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
