(umask 077; sed '/^bob:/d' peers.keys > rest.keys)
mv rest.keys peers.keys
kill -HUP "$(cat twistd.pid)"
