twistd -n gomux --psk-file peers.keys \
  --connect alice=tcp:a.example:7001 --connect bob=tcp:b.example:7002 \
  --forward @alice=tcp:2201 --forward @bob=tcp:2202
