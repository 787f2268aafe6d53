#!/usr/bin/env python3
"""An FTP server for tests: pyftpdlib with TLS at once or on request, that cuts its first data connections if told to."""

import argparse
import socket
import struct

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import DTPHandler, FTPHandler, TLS_DTPHandler, TLS_FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--folder", required=True)
parser.add_argument("--user", required=True)
parser.add_argument("--password", required=True)
parser.add_argument("--tls", choices=["off", "explicit", "implicit"], default="off")
parser.add_argument("--certificate")
parser.add_argument("--cut-after", type=int, default=0, help="bytes of a file after which its connection is reset")
parser.add_argument("--cut-uploads", action="store_true", help="those of files that come, not of those that go")
parser.add_argument("--cuts", type=int, default=0, help="how many are")
parser.add_argument("--no-mlsd", action="store_true")
options = parser.parse_args()
cuts_left = options.cuts


def cutting(base):
    class Cutting(base):
        ac_out_buffer_size = 16384
        passed = 0

        def cut(self):
            global cuts_left
            if cuts_left <= 0 or self.passed <= options.cut_after:
                return False
            cuts_left -= 1
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()
            if options.cut_uploads:
                self.cmd_channel.respond("426 cut")
            return True

        def send(self, data):
            if not options.cut_uploads and self.cut():
                return 0
            n = super().send(data)
            self.passed += n
            return n

        def recv(self, buffer_size):
            if options.cut_uploads and self.cut():
                return b""
            data = super().recv(buffer_size)
            self.passed += len(data)
            return data

    return Cutting


if options.tls == "off":
    handler, handler.dtp_handler = FTPHandler, cutting(DTPHandler)
    handler.use_sendfile = False
else:
    handler, handler.dtp_handler = TLS_FTPHandler, cutting(TLS_DTPHandler)
    handler.certfile = options.certificate
    handler.tls_control_required = handler.tls_data_required = True

if options.tls == "implicit":

    class Implicit(TLS_FTPHandler):
        def handle(self):
            self.secure_connection(self.get_ssl_context() if hasattr(self, "get_ssl_context") else self.ssl_context)

        def handle_ssl_established(self):
            super().handle()

    handler = Implicit

if options.no_mlsd:
    handler.proto_cmds = {name: value for name, value in handler.proto_cmds.items() if name not in ("MLSD", "MLST")}

handler.authorizer = DummyAuthorizer()
handler.authorizer.add_user(options.user, options.password, options.folder, perm="elradfmw")
handler.auth_failed_timeout = 0.1
ThreadedFTPServer(("127.0.0.1", options.port), handler).serve_forever(handle_exit=False)
