twistd -n gomux --psk-file gomux.psk --listen tcp:7000 --target tcp:localhost:8000
