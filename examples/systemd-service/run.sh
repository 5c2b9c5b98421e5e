#!/bin/bash
# Runs the example without touching this machine's systemd: the units are verified, the agent is started by
# systemd's own socket activation, and the control group of orders.service is made by hand.
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../agent.sh"

mkdir "$work/units"
"$bin/tbot-proxy" install systemd --systemd-directory "$work/units" \
  --socket /run/tbot-proxy/workload.sock --write
if command -v systemd-analyze >/dev/null; then
  # It is /usr/bin/tbot-proxy on a machine where it is installed.
  sed "s|/usr/bin/tbot-proxy|$bin/tbot-proxy|" "$here/orders.service" >"$work/units/orders.service"
  (cd "$work/units" && systemd-analyze verify --man=no ./orders.service ./tbot-proxy.service ./tbot-proxy.socket 2>&1) |
    grep -E '(orders|tbot-proxy)\.(service|socket)' && { echo "the units have mistakes" >&2; exit 1; }
  echo "the units are accepted by systemd-analyze"
fi

start_issuer "$here/resources.yaml"
cat >"$work/services.yaml" <<SERVICES
services:
  - type: workload-identity-api
    name: api
    selector: { name: orders }
    listen: unix://$socket
    attestors:
      systemd: {}
SERVICES

# in_unit NAME COMMAND...: in the control group that systemd would have made for the unit.
in_unit() {
  local unit=$1; shift
  local group=$hierarchy/system.slice/$unit
  mkdir -p "$group"
  bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@"
}
for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
  mkdir -p "$hierarchy/system.slice/orders.service" 2>/dev/null && break
  hierarchy=
done
if [ -z "$hierarchy" ]; then
  echo "SKIPPED the rest: control groups cannot be made here (it needs root)"
  exit 0
fi

# Whoever is in no unit gets nothing: the agent is asked from within the unit.
ask_agent() { in_unit orders.service "$bin/tbot-proxy" svid list --socket "unix://$socket"; }
start_agent

echo "in orders.service:"
in_unit orders.service "$bin/tbot-proxy" svid list --socket "unix://$socket"
echo "in other.service:"
if in_unit other.service "$bin/tbot-proxy" svid list --socket "unix://$socket" 2>"$work/refused"; then
  echo "another unit has the identity of orders.service" >&2
  exit 1
fi
grep -o 'no identity for this process' "$work/refused"
rmdir "$hierarchy/system.slice/orders.service" "$hierarchy/system.slice/other.service" "$hierarchy/system.slice" 2>/dev/null || true
