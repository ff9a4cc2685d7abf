apt-get install --no-install-recommends python3-venv curl jq prometheus
