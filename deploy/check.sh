#!/bin/sh
# Validates the files of this folder with the tools that are installed; says what it could not check.
# promtool: Debian's package prometheus. kubernetes-validate, for the API's schemas: PyPI.
set -eu
cd "$(dirname "$0")"
have() { command -v "$1" >/dev/null 2>&1 || { echo "not checked: $1 is not installed"; return 1; }; }
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

if have promtool; then
    (cd monitoring && promtool check config prometheus.yaml && promtool test rules rules_test.yaml)
fi
if have kubectl; then
    for overlay in base temporal-cloud; do
        kubectl kustomize "kubernetes/$overlay" >"$work/$overlay.yaml"
        if have kubernetes-validate; then kubernetes-validate --strict "$work/$overlay.yaml"; fi
    done
fi
if have docker && docker compose version >/dev/null 2>&1; then
    : >"$work/empty.env"
    POSTGRES_PASSWORD=x WORKER_ENV="$work/empty.env" docker compose -f stack/compose.yaml config --quiet
    cp compose/compose.yaml "$work" && cp compose/worker.env.example "$work/worker.env"
    docker compose -f "$work/compose.yaml" config --quiet
else
    echo "not checked: docker compose is not installed"
fi
if have shellcheck; then shellcheck check.sh stack/scripts/*.sh; fi
if have systemd-analyze; then
    systemd-analyze verify "systemd/komodo-upgrade-worker@.service" || echo "systemd: see above (the program may be missing here)"
fi
echo "deploy: checked"
