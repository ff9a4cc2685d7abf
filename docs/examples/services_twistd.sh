PYTHONPATH=. twistd -n gomux --psk-file gomux.psk --listen tcp:7000 \
  --factory echo=service.makeFactory --factory page=gomux.PageFactory \
  --allow '*=echo'
