umask 077
{
  echo '[keyring]'
  for peer in alice bob; do echo "$peer:$(python -m gomux genpsk)"; done
} > office/peers.keys
sed -n 's/^alice://p' office/peers.keys > laptop/gomux.psk
sed -n 's/^bob://p' office/peers.keys > bob.psk
