twistd -n gomux --psk-file alice.psk --connect tcp:b.example:7000 \
  --target web=tcp:localhost:8000 --forward mail=tcp:2500 --forward log=tcp:5141
