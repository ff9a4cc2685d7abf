from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.server import Site
from twisted.web.static import File

site = Site(File("public"))

for description in ["tcp:8000", "gomux:tcp:7000:pskFile=gomux.psk"]:
    serverFromString(reactor, description).listen(site)

reactor.run()
