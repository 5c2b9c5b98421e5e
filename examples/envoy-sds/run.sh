#!/bin/bash
# Runs the example: an issuer, an agent, an application, and Envoy between it and curl.
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../agent.sh"
envoy=${ENVOY:-$root/target/peers/bin/envoy}
[ -x "$envoy" ] || { echo "no $envoy: make peers" >&2; exit 1; }

start_issuer "$here/resources.yaml"
cat >"$work/services.yaml" <<SERVICES
services:
  - type: workload-identity-api
    name: api
    selector: { name: envoy }
    listen: unix://$socket
SERVICES
start_agent

mkdir "$work/www"
echo "served over mutual TLS" >"$work/www/index.html"
app=$(free_port) plain=$(free_port) mtls=$(free_port)
python3 -m http.server --bind 127.0.0.1 --directory "$work/www" "$app" >"$work/app.log" 2>&1 &
sed -e "s|\$socket|$socket|; s|\$plain|$plain|; s|\$mtls|$mtls|; s|\$app|$app|" "$here/envoy.yaml" >"$work/envoy.yaml"
"$envoy" -c "$work/envoy.yaml" --use-dynamic-base-id --concurrency 1 -l warning >"$work/envoy.log" 2>&1 &
wait_for "Envoy has its secrets" curl -sf --max-time 2 "http://127.0.0.1:$plain/"
curl -sf "http://127.0.0.1:$plain/"

# Without an identity nobody gets in.
if curl -sk --max-time 5 "https://127.0.0.1:$mtls/" >/dev/null 2>&1; then
  echo "a stranger got in" >&2
  exit 1
fi
echo "a stranger without an SVID is refused"
