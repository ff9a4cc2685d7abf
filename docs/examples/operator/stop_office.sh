kill "$(cat office/twistd.pid)"
