python -m gomux ping gomux:tcp:a.example:7000:pskFile=gomux.psk
