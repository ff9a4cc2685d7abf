curl -sS --limit-rate 10M -o /dev/null http://127.0.0.1:8080/big.img &
sed -i '/^\[peer.alice\]/,/^services/ s/"web"/"web", "status"/' office/gomux.toml
twistd gomux --config office/gomux.toml --check
kill -HUP "$(cat office/twistd.pid)"
