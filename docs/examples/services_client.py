from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react

from gomux import ServiceUnknown

MUX = "gomux:tcp:localhost:7000:pskFile=gomux.psk"


class Asking(Protocol):
    def __init__(self):
        self.answer = Deferred()

    def dataReceived(self, data):
        self.answer.callback(data)


async def ask(reactor, service, question):
    endpoint = clientFromString(reactor, MUX + ":service=" + service)
    asking = await endpoint.connect(Factory.forProtocol(Asking))
    asking.transport.write(question)
    answer = await asking.answer
    asking.transport.loseConnection()
    return answer


async def main(reactor):
    print(await ask(reactor, "echo", b"hello"))
    page = await ask(reactor, "web", b"GET /hello.txt HTTP/1.0\r\n\r\n")
    print(page.splitlines()[0])
    try:
        await ask(reactor, "chat", b"hello")
    except ServiceUnknown as error:
        print(error)


react(main)
