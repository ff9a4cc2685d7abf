from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from gomux import Session

PSK = open("gomux.psk").readline().rstrip("\n")


async def main(reactor):
    carrier = serverFromString(reactor, "tcp:7000")
    listener = await Session.server(reactor, carrier, PSK, silentPeers=True)
    session = await listener.accept()
    conn = await session.openStream()
    await conn.write(b"after you")
    print(await conn.read())
    await session.close()


react(main)
