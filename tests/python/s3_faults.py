"""An S3 service with faults, for the tests of the push: moto's, behind a door that does what FILE says.

    s3_faults.py FILE      prints its port; FILE holds one word, read at every request:
    ok                     nothing is wrong
    busy                   every request is answered 503
    hang                   no request is answered
    lie                    puts and parts are answered as if they had been kept, and are not
    flip                   one bit of every put and part is another one
    cut N                  after N more parts every request is answered 503
    apart                  whoever wants parts put together is answered 503
    noparts                parts are answered 503
"""

import io
import sys
import time

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

MODE = sys.argv[1]
moto = DomainDispatcherApplication(create_backend_app)
parts = 0


def refuse(start_response):
    body = b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>"
    start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def door(environ, start_response):
    global parts
    # The test's own look is nobody's.
    environ.setdefault("HTTP_AUTHORIZATION", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request")
    mode, *argument = open(MODE).read().split() or ["ok"]
    upload = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") > 1
    if mode == "busy":
        return refuse(start_response)
    if mode == "hang":
        time.sleep(30)
        return refuse(start_response)
    if mode == "cut":
        if parts >= int(argument[0]):
            return refuse(start_response)
        parts += upload
    else:
        parts = 0
    query = environ.get("QUERY_STRING", "")
    if mode == "apart" and environ["REQUEST_METHOD"] == "POST" and "uploadId=" in query:
        return refuse(start_response)
    if mode == "noparts" and upload and "partNumber=" in query:
        return refuse(start_response)
    if upload and mode in ("lie", "flip"):
        body = bytearray(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        if mode == "lie":
            start_response("200 OK", [("ETag", '"0123456789abcdef0123456789abcdef"'), ("Content-Length", "0")])
            return [b""]
        if body:
            body[len(body) // 2] ^= 1
        environ["wsgi.input"] = io.BytesIO(bytes(body))
    return moto(environ, start_response)


server = make_server("127.0.0.1", 0, door, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
