twistd -n gomux --psk-file peers.keys --end-revoked --listen tcp:7000 \
  --forward web@alice=tcp:8080 --forward web@bob=tcp:8081 \
  --target mail=tcp:localhost:2525 --target log=tcp:localhost:5140 \
  --allow alice=mail,log --allow '*=log'
