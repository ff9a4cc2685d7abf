twistd -n gomux --psk-file peers.keys --listen tcp:7000 \
  --forward web@alice=tcp:8080 --forward web@bob=tcp:8081 \
  --target mail=tcp:localhost:25 --allow alice=mail --allow '*=unnamed'
