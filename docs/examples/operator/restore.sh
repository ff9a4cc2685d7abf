sed -i '/^\[peer.alice\]/,/^services/ s/"status"/"web"/' office/gomux.toml
kill -HUP "$(cat office/twistd.pid)"
