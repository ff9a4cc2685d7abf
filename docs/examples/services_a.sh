PYTHONPATH=. twistd -n gomux --psk-file gomux.psk --listen tcp:7000 \
  --target web=tcp:localhost:8000 --factory echo=service.makeFactory
