from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo


def makeFactory():
    return Factory.forProtocol(Echo)
