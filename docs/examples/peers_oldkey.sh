(umask 077; awk '!/^alice:/ || seen++' peers.keys > rest.keys)
mv rest.keys peers.keys
kill -HUP "$(cat twistd.pid)"
