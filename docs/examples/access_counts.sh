jq -r '(.service // "unnamed") + " " + .end' access.log | sort | uniq -c
