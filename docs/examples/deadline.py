from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from gomux import Session
from gomux.error import DeadlineExceeded

PSK = open("gomux.psk").readline().rstrip("\n")


async def main(reactor):
    carrier = clientFromString(reactor, "tcp:localhost:7000")
    session = await Session.client(reactor, carrier, PSK)
    conn = await session.openStream()

    conn.setReadDeadline(reactor.seconds() + 0.5)
    try:
        await conn.read()
    except DeadlineExceeded:
        print("nothing came")

    conn.setReadDeadline(None)
    await conn.write(b"and now?")
    conn.closeWrite()
    print(await conn.read(), await conn.read())
    await session.close()


react(main)
