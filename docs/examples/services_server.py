from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo
from twisted.web.server import Site
from twisted.web.static import File

MUX = "gomux:tcp:7000:pskFile=gomux.psk"

site = Site(File("public"))
echo = Factory.forProtocol(Echo)

serverFromString(reactor, MUX + ":service=web").listen(site)
serverFromString(reactor, MUX + ":service=echo").listen(echo)

reactor.run()
