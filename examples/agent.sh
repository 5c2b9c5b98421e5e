# Sourced by the examples: an issuer and an agent on free ports of loopback, stopped at the end.
#
# Sets $work (a directory of this run), $socket (the Workload API) and $bin. Needs `resources.yaml`
# beside the example, with a role `example`; `services` is what the agent runs.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${BIN:-$root/target/debug}
for program in issuer tbot-proxy; do
  [ -x "$bin/$program" ] || { echo "no $bin/$program: cargo build -p issuer -p tbot-proxy" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
socket=$work/workload.sock

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_for WHAT COMMAND...: until the command succeeds, for a minute at most.
wait_for() {
  local what=$1; shift
  for _ in $(seq 600); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  echo "did not happen within a minute: $what" >&2
  tail -n 20 "$work"/*.log >&2
  exit 1
}

# start_issuer RESOURCES
start_issuer() {
  issuer_port=$(free_port)
  "$bin/issuer" serve --trust-domain example.test --data-dir "$work/issuer" \
    --listen "127.0.0.1:$issuer_port" --diagnostics 127.0.0.1:0 >"$work/issuer.log" 2>&1 &
  wait_for "the issuer serves" "$bin/issuer" status --data-dir "$work/issuer"
  "$bin/issuer" apply -f "$1" --data-dir "$work/issuer"
}

# What succeeds when the agent has an identity for who asks.
ask_agent() { "$bin/tbot-proxy" svid list --socket "unix://$socket"; }

# start_agent: runs what stands in $work/services.yaml.
start_agent() {
  local joined
  joined=$("$bin/issuer" bot add example --roles example -o json --data-dir "$work/issuer")
  field() { python3 -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$joined" "$1"; }
  diagnostics=127.0.0.1:$(free_port)
  {
    echo "version: v1"
    echo "issuer: { address: \"127.0.0.1:$issuer_port\", ca_pins: [\"$(field ca_pin)\"] }"
    echo "onboarding: { join_method: token }"
    echo "storage: { type: memory }"
    echo "diagnostics: { listen: \"$diagnostics\" }"
    cat "$work/services.yaml"
  } >"$work/agent.yaml"
  TBOT_TOKEN=$(field token) "$bin/tbot-proxy" start -c "$work/agent.yaml" >"$work/agent.log" 2>&1 &
  wait_for "the agent is ready" ask_agent
}
