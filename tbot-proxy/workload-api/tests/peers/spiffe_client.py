"""py-spiffe as it is: sources that follow a Workload API.

Prints a line of JSON for what the sources hold at first and after each update, until
standard input ends.
"""

import json
import sys
import threading

from spiffe import JwtSource, WorkloadApiClient, X509Source

socket = "unix:" + sys.argv[1]
told = threading.Lock()


def tell(of, **what):
    with told:
        print(json.dumps({"of": of, **what}), flush=True)


def x509_state():
    context = x509.get_x509_context()
    svid = context.default_svid
    return {
        "ids": [str(it.spiffe_id) for it in context.x509_svids],
        "serial": f"{svid.leaf.serial_number:x}",
        "bundles": sorted(str(it.trust_domain) for it in context.x509_bundle_set.bundles),
    }


def jwt_state():
    return {"bundles": sorted(str(it.trust_domain) for it in jwt.bundles)}


with WorkloadApiClient(socket) as client:
    svid = client.fetch_x509_svid(timeout=30)
    bundles = client.fetch_x509_bundles(timeout=30)
    token = client.fetch_jwt_svid(audience={"a", "b"}, timeout=30)
    valid = client.validate_jwt_svid(token.token, "a", timeout=30)
    tell(
        "client",
        id=str(svid.spiffe_id),
        chain=len(svid.cert_chain),
        token_id=str(token.spiffe_id),
        valid_id=str(valid.spiffe_id),
    )

with X509Source(socket_path=socket, timeout_in_seconds=30) as x509, JwtSource(
    socket_path=socket, timeout_in_seconds=30
) as jwt:
    x509.subscribe_for_updates(lambda: tell("x509", **x509_state()))
    jwt.subscribe_for_updates(lambda: tell("jwt", **jwt_state()))
    tell("x509", **x509_state())
    token = jwt.fetch_svid(audience={"a"})
    tell("jwt", token_id=str(token.spiffe_id), **jwt_state())
    sys.stdin.read()
tell("end")
