umask 077
(
  echo '[keyring]'
  for name in alice bob; do echo "$name:$(python -m gomux genpsk)"; done
) > peers.keys
for name in alice bob; do sed -n "s/^$name://p" peers.keys > $name.psk; done
