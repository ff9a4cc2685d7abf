echo "alice:$(python -m gomux genpsk)" >> office/peers.keys
kill -HUP "$(cat office/twistd.pid)"
sed -n 's/^alice://p' office/peers.keys | tail -n 1 > laptop/gomux.psk
kill -HUP "$(cat laptop/twistd.pid)"
