curl -s http://127.0.0.1:7100/status.json | jq -c '.peers[] | [.name, .muxes, .bytesSent]'
