twistd -n gomux --psk-file gomux.psk --connect tcp:b.example:7000 \
  --target web=tcp:localhost:8000 --forward mail=tcp:2525
