"""A mail server for tests, on aiosmtpd: it keeps what it takes and misbehaves as told.

Talks in lines of JSON. On standard input: what it does with the next mails. On standard output: first its port, then each thing
that happens. It ends with its standard input.
"""

import asyncio
import base64
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


def tell(**what):
    print(json.dumps(what), flush=True)


class Server:
    """The moods are a queue: one a mail. `None` is a good one."""

    def __init__(self):
        self.moods = []
        self.mood = None

    async def handle_MAIL(self, server, session, envelope, address, options):
        self.mood = self.moods.pop(0) if self.moods else None
        if self.mood and self.mood.startswith("mail "):
            return self.mood[5:]
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        # "rcpt NAME 550 ..." refuses one recipient.
        if self.mood and self.mood.startswith("rcpt "):
            _, name, answer = self.mood.split(" ", 2)
            if address.startswith(name) or name == "*":
                return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        content = base64.b64encode(envelope.original_content).decode()
        tell(event="mail", mood=self.mood, sender=envelope.mail_from, recipients=envelope.rcpt_tos, content=content,
             tls=server.transport.get_extra_info("sslcontext") is not None, login=bool(session.authenticated))
        if self.mood and self.mood.startswith("data "):
            return self.mood[5:]
        if self.mood == "cut":
            server.transport.abort()
            return "250 never seen"
        if self.mood == "silent":
            await asyncio.sleep(3600)
        return "250 2.0.0 kept"


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"us@er", b"pa:ss w\xc3\xb6rd")
    return AuthResult(success=good, handled=False)


async def main(options):
    loop = asyncio.get_running_loop()
    context = None
    if "certificate" in options:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options["certificate"], options["key"])
    wrapped = options.get("wrapped", False)
    handler = Server()

    def factory():
        return SMTP(handler, hostname="mail.test", data_size_limit=40_000_000, enable_SMTPUTF8=False,
                    tls_context=None if wrapped else context, require_starttls=False,
                    authenticator=authenticate, auth_require_tls=False, auth_required=options.get("login", False))

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context if wrapped else None)
    tell(port=server.sockets[0].getsockname()[1])
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        handler.moods.extend(json.loads(line))
        tell(event="told")


asyncio.run(main(json.loads(sys.argv[1])))
