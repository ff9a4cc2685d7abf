sed -i '/^\[peer.alice\]/,/^services/ s/"web", //' office/gomux.toml
kill -HUP "$(cat office/twistd.pid)"
