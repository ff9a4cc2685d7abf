from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from gomux import Session


async def main(reactor):
    carrier = clientFromString(reactor, "tcp:localhost:7000")
    psk = open("gomux.psk").readline().rstrip("\n")
    session = await Session.client(reactor, carrier, psk)
    conn = await session.openStream()
    await conn.write(b"hello")
    print(await conn.read())
    await session.close()


react(main)
