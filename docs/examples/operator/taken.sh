jq -c '[.service, .peer, .end, .reason]' office/access.log | tail -n 1
