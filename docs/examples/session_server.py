from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from gomux import Session
from gomux.error import GomuxError

PSK = open("gomux.psk").readline().rstrip("\n")


async def echo(conn):
    while data := await conn.read():
        await conn.write(data)
    conn.close()


async def serve(session):
    try:
        while True:
            conn = await session.acceptStream()
            Deferred.fromCoroutine(echo(conn)).addErrback(print)
    except GomuxError as error:
        print(f"{session.remoteAddr().host}: {error}")


async def main(reactor):
    carrier = serverFromString(reactor, "tcp:7000")
    listener = await Session.server(reactor, carrier, PSK)
    async for session in listener:
        Deferred.fromCoroutine(serve(session))


react(main)
