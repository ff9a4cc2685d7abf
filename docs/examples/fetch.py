from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react
from twisted.web.client import Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer


@implementer(IAgentEndpointFactory)
class OverMux:
    def __init__(self, endpoint):
        self.endpoint = endpoint

    def endpointForURI(self, uri):
        return self.endpoint


async def main(reactor):
    mux = clientFromString(reactor, "gomux:tcp:localhost:7000:pskFile=gomux.psk")
    agent = Agent.usingEndpointFactory(reactor, OverMux(mux))
    response = await agent.request(b"GET", b"http://any.example/hello.txt")
    print(response.code, response.length)


react(main)
