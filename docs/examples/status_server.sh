twistd -n gomux --psk-file gomux.psk --listen tcp:7000 --target web=tcp:localhost:8000 \
  --status tcp:9100:interface=127.0.0.1
