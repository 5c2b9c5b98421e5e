#!/bin/bash
# Runs the example: an issuer, an agent, and the application.
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../agent.sh"
python=${PYTHON:-$root/target/peers/bin/python}
"$python" -c 'import spiffe' 2>/dev/null || { echo "no package spiffe: make peers" >&2; exit 1; }

start_issuer "$here/resources.yaml"
cat >"$work/services.yaml" <<SERVICES
services:
  - type: workload-identity-api
    name: api
    selector: { name: by-user }
    listen: unix://$socket
SERVICES
start_agent
"$python" "$here/app.py" "$socket"
