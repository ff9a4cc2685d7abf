curl -s http://127.0.0.1:9095/api/v1/query -d query=gomux_muxes |
  jq -c '.data.result[] | [.metric.peer, .value[1]]'
