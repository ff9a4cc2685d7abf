python -m gomux ping gomux:tcp:127.0.0.1:7000:pskFile=bob.psk
