"""A stand-in for AWS IAM Roles Anywhere that verifies the signature of CreateSession.

Written from AWS's description of the signing process, independently of ours:
rolesanywhere.py CERTIFICATE KEY TRUST_ANCHOR; prints its port.
"""

import base64
import datetime
import hashlib
import http.server
import json
import re
import ssl
import sys

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

anchor = x509.load_pem_x509_certificate(open(sys.argv[3], "rb").read())


class Refused(Exception):
    pass


def verify(method, path, headers, body):
    match = re.fullmatch(
        r"AWS4-X509-ECDSA-SHA256 Credential=(\d+)/(\d{8})/([a-z0-9-]+)/rolesanywhere/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]+)",
        headers["authorization"],
    )
    if not match:
        raise Refused("Authorization header has another form")
    serial, day, region, names, signature = match.groups()
    names = names.split(";")
    for needed in ("host", "x-amz-date", "x-amz-x509"):
        if needed not in names:
            raise Refused(f"{needed} is not signed")
    if "x-amz-x509-chain" in headers and "x-amz-x509-chain" not in names:
        raise Refused("the chain is not signed")
    if names != sorted(names):
        raise Refused("SignedHeaders are not sorted")
    at = headers["x-amz-date"]
    signed_at = datetime.datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    if abs(datetime.datetime.now(datetime.timezone.utc) - signed_at) > datetime.timedelta(minutes=15):
        raise Refused("Signature expired")
    if not at.startswith(day):
        raise Refused("the scope is of another day")
    leaf = x509.load_der_x509_certificate(base64.b64decode(headers["x-amz-x509"], validate=True))
    if str(leaf.serial_number) != serial:
        raise Refused("the credential is not the serial number")
    canonical = "\n".join(
        [method, path, ""]
        + [name + ":" + " ".join(headers[name].split()) for name in names]
        + ["", ";".join(names), hashlib.sha256(body).hexdigest()]
    )
    to_sign = "\n".join(
        [
            "AWS4-X509-ECDSA-SHA256",
            at,
            f"{day}/{region}/rolesanywhere/aws4_request",
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    try:
        leaf.public_key().verify(bytes.fromhex(signature), to_sign.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("Invalid signature")
    chain = [
        x509.load_der_x509_certificate(base64.b64decode(one, validate=True))
        for one in headers.get("x-amz-x509-chain", "").split(",")
        if one
    ]
    at = leaf
    for above in chain + [anchor]:
        try:
            at.verify_directly_issued_by(above)
        except Exception:
            raise Refused("Untrusted certificate. Insufficient certificate chain")
        at = above
    return leaf, region


class Sessions(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            if self.path != "/sessions":
                raise Refused("no such path")
            leaf, region = verify("POST", self.path, headers, body)
            asked = json.loads(body)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            (spiffe_id,) = names.get_values_for_type(x509.UniformResourceIdentifier)
            life = datetime.timedelta(seconds=asked.get("durationSeconds", 3600))
            until = datetime.datetime.now(datetime.timezone.utc) + life
            status, answer = 201, {
                "credentialSet": [
                    {
                        "credentials": {
                            "accessKeyId": "ASIA" + hashlib.sha256(body).hexdigest()[:16].upper(),
                            "secretAccessKey": "secret/of+" + region,
                            "sessionToken": base64.b64encode(spiffe_id.encode()).decode(),
                            "expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
                        },
                        "roleArn": asked["roleArn"],
                    }
                ],
                "subjectArn": "arn:aws:rolesanywhere:::subject/x",
            }
        except Refused as refused:
            status, answer = 403, {"message": str(refused)}
        answer = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sessions)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = tls.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
