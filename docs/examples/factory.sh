PYTHONPATH=. twistd -n gomux --psk-file gomux.psk --listen tcp:7000 --factory service.makeFactory
