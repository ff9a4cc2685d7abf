sed -i '0,/^alice:/{//d}' office/peers.keys
kill -HUP "$(cat office/twistd.pid)"
