"""Python's `cryptography` and PyJWT accept what the issuer signs."""

import ipaddress
import pathlib
import sys

import jwt
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

folder = pathlib.Path(sys.argv[1])
roots = x509.load_pem_x509_certificates((folder / "ca.pem").read_bytes())
cross = x509.load_pem_x509_certificates((folder / "cross.pem").read_bytes())
client = PolicyBuilder().store(Store(roots)).build_client_verifier()

for file in sorted(folder.glob("leaf-*.pem")):
    leaf = x509.load_pem_x509_certificate(file.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical == (len(leaf.subject) == 0), file.name
    assert len(names.value.get_values_for_type(x509.UniformResourceIdentifier)) == 1
    # The Web PKI's profile, which this verifier demands, has no Ed25519.
    if "ed25519" in file.name:
        signer = next(ca for ca in roots + cross if ca.subject == leaf.issuer)
        leaf.verify_directly_issued_by(signer)
    else:
        verified = client.verify(leaf, cross)
        assert verified.chain[0] == leaf
        for address in names.value.get_values_for_type(x509.IPAddress):
            server = PolicyBuilder().store(Store(roots)).build_server_verifier(x509.IPAddress(ipaddress.ip_address(address)))
            server.verify(leaf, cross)
        for name in names.value.get_values_for_type(x509.DNSName):
            server = PolicyBuilder().store(Store(roots)).build_server_verifier(x509.DNSName(name))
            server.verify(leaf, cross)
    print(file.name, leaf.subject.rfc4514_string())

keys = jwt.PyJWKSet.from_json((folder / "jwks.json").read_text())
for algorithm in ["ES256", "RS256"]:
    token = (folder / f"{algorithm}.jwt").read_text().strip()
    key = keys[jwt.get_unverified_header(token)["kid"]]
    required = {"require": ["exp", "iat", "nbf", "aud", "sub", "jti", "iss"]}
    claims = jwt.decode(token, key, algorithms=[algorithm], audience="https://db.example.org", options=required)
    print(algorithm, claims["sub"])
    try:
        jwt.decode(token, key, algorithms=[algorithm], audience="another")
        sys.exit("another audience was accepted")
    except jwt.InvalidAudienceError:
        pass
