"""An identity provider for tests, by joserfc: it has keys, publishes some of them, and signs what it is told to.

    identity_provider.py PORT [CERTIFICATE KEY]

A line of JSON on stdin is a request, a line on stdout its answer:

    {"do": "key", "kid": "a", "kind": "RS256"}                       makes a key
    {"do": "publish", "kids": ["a"]}                                 what http://127.0.0.1:PORT/keys answers; answers it, too
    {"do": "token", "kid": "a", "claims": {...}, "header": {...}}    a token; `alg` in the header signs by another algorithm
    {"do": "none", "claims": {...}}                                  one without a signature
    {"do": "shared", "kid": "a", "claims": {...}}                    HS256 with the public key of `a` as its secret
    {"do": "away"}, {"do": "back"}                                   whether it can be reached
    {"do": "asked"}                                                  how often its keys were asked for
"""

import base64
import hmac
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from joserfc import jwt
from joserfc.jws import JWSRegistry
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.registry import HeaderParameter

EVERY = ["RS256", "RS384", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"]
# Headers that no well-behaved provider has are for the tests to have.
LOOSE = JWSRegistry({"x": HeaderParameter("anything", "str")}, algorithms=EVERY, strict_check_header=False)
keys, kinds, published, asked = {}, {}, {"keys": []}, 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += 1
        body = json.dumps(published).encode()
        self.send_response(200 if self.path == "/keys" else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(port, pair):
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def new_key(kind, kid):
    parameters = {"kid": kid, "use": "sig"}
    if kind.startswith(("RS", "PS")):
        return RSAKey.generate_key(2048, parameters)
    if kind.startswith("ES"):
        return ECKey.generate_key({"ES256": "P-256", "ES384": "P-384"}[kind], parameters)
    return OKPKey.generate_key("Ed25519", parameters)


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def main():
    global published
    port, pair = int(sys.argv[1]), sys.argv[2:4]
    server = serve(port, pair)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        match ask["do"]:
            case "key":
                kinds[ask["kid"]] = ask["kind"]
                keys[ask["kid"]] = new_key(ask["kind"], ask["kid"])
                answer = None
            case "publish":
                published = {"keys": [keys[kid].as_dict(private=False) for kid in ask["kids"]]}
                answer = published
            case "token":
                header = {"alg": kinds[ask["kid"]], "kid": ask["kid"], **ask.get("header", {})}
                header = {name: value for name, value in header.items() if value is not None}
                answer = jwt.encode(header, ask["claims"], keys[ask["kid"]], registry=LOOSE)
            case "none":
                answer = f"{part({'alg': 'none', 'kid': ask['kid']})}.{part(ask['claims'])}."
            case "shared":
                # What a verifier that does not look which kind of key it has would take; joserfc itself refuses to.
                head = f"{part({'alg': 'HS256', 'kid': ask['kid']})}.{part(ask['claims'])}"
                secret = keys[ask["kid"]].as_pem(private=False)
                signature = hmac.digest(secret, head.encode(), "sha256")
                answer = f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
            case "away":
                server.shutdown()
                server.server_close()
                answer = None
            case "back":
                server = serve(port, pair)
                answer = None
            case "asked":
                answer = asked
        print(json.dumps(answer), flush=True)


main()
