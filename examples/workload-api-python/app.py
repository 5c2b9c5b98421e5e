"""Two ends of a mutual TLS connection, each with the X509-SVID of its own process.

Everything about identities comes from the Workload API: no files, no secrets, no configuration but the
socket. The library follows rotations by itself.
"""

import ssl
import sys
import tempfile
import threading
from socket import create_connection, socket

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import JwtSource, X509Source


def context(source, purpose):
    """A TLS context with the SVID that the source has now."""
    svid = source.get_x509_context().default_svid
    tls = ssl.SSLContext(purpose)
    tls.check_hostname = False  # SPIFFE IDs are checked in place of host names
    tls.verify_mode = ssl.CERT_REQUIRED
    bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    pem = b"".join(authority.public_bytes(Encoding.PEM) for authority in bundle.x509_authorities)
    tls.load_verify_locations(cadata=pem.decode())
    with tempfile.NamedTemporaryFile() as file:  # Python's ssl takes keys from files only
        file.write(svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.write(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in svid.cert_chain))
        file.flush()
        tls.load_cert_chain(file.name)
    return tls


def peer(connection):
    """The SPIFFE ID of the other end, which TLS has verified against the trust bundle."""
    certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    [uri] = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uri


def serve(listener, tls, allowed):
    connection, _ = listener.accept()
    with tls.wrap_socket(connection, server_side=True) as stream:
        who = peer(stream)
        stream.sendall(f"hello {who}\n".encode() if who == allowed else b"who are you?\n")


path = "unix:" + sys.argv[1]
with X509Source(socket_path=path) as source, JwtSource(socket_path=path) as tokens:
    me = str(source.get_x509_context().default_svid.spiffe_id)
    print(f"I am {me}")
    with socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener, context(source, ssl.PROTOCOL_TLS_SERVER), me))
        server.start()
        with create_connection(listener.getsockname()) as connection:
            with context(source, ssl.PROTOCOL_TLS_CLIENT).wrap_socket(connection) as stream:
                assert peer(stream) == me, "the server is somebody else"
                print(f"the server says: {stream.makefile().readline().strip()}")
        server.join()
    token = tokens.fetch_svid(audience={"orders"})
    print(f"a token of {token.spiffe_id} for orders, until {token.expiry}")
