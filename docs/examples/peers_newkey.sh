echo "alice:$(python -m gomux genpsk)" >> peers.keys
(umask 077; sed -n 's/^alice://p' peers.keys | tail -n 1 > alice.psk)
kill -HUP "$(cat twistd.pid)"
