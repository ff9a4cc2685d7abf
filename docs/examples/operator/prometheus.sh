cp ../gomux/docs/examples/status_alerts.yml prometheus/alerts.yml
promtool check config prometheus/prometheus.yml
prometheus --config.file prometheus/prometheus.yml --storage.tsdb.path prometheus/data \
  --web.listen-address 127.0.0.1:9095
