jq -c '[.service, .peer, .sent, .end]' office/access.log
