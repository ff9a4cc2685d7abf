kill "$(cat laptop/twistd.pid)"
