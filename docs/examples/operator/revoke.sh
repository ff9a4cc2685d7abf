sed -i '/^bob:/d' office/peers.keys
kill -HUP "$(cat office/twistd.pid)"
