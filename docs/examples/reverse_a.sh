twistd -n gomux --psk-file gomux.psk --connect tcp:b.example:7000 --target tcp:localhost:8000
