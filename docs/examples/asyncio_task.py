import asyncio

from twisted.internet import asyncioreactor

loop = asyncio.new_event_loop()
asyncioreactor.install(loop)

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from gomux import Session

PSK = open("gomux.psk").readline().rstrip("\n")


async def task():
    carrier = clientFromString(reactor, "tcp:localhost:7000")
    session = await Session.client(reactor, carrier, PSK).asFuture(loop)
    conn = await session.openStream().asFuture(loop)
    await conn.write(b"hello").asFuture(loop)
    print(await asyncio.wait_for(conn.read().asFuture(loop), timeout=5))
    await session.close().asFuture(loop)


react(lambda reactor: Deferred.fromFuture(loop.create_task(task())))
