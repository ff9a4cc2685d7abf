twistd -n gomux --psk-file gomux.psk --listen tcp:7000 --forward tcp:8080
