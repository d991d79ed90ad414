#!/usr/bin/env bash
# Installs RayNAS on a node, and makes the shells in which Ray starts things find it. config.yaml, gcp.yaml and
# local.yaml run it on every node; running it again does no harm.
set -euo pipefail

source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=$HOME/raynas-env
ray=2.60.0 # the same on all nodes, also on those that join next month; on the machine of `ray up`, too

test -x "$environment/bin/python" || python3 -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check "$source" "ray[default]==$ray" "$@"
chmod 600 ~/.ray/auth_token

# `ray submit` and `ray exec` run what they are given in such shells: there `python` is this one, and a run joins the
# cluster of this machine.
grep -qs raynas-env ~/.bashrc || cat >>~/.bashrc <<'LINES'
export PATH="$HOME/raynas-env/bin:$PATH" RAY_AUTH_MODE=token RAY_ADDRESS=auto  # raynas-env
LINES
