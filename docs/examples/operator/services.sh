curl -s http://127.0.0.1:7100/status.json | jq -c '.services[] | [.service, .open]'
