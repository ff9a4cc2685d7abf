curl -s http://127.0.0.1:9095/api/v1/rules |
  jq -c '.data.groups[].rules[] | [.name, .state]'
