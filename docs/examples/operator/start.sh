twistd --pidfile office/twistd.pid --logfile office/twistd.log \
  gomux --config office/gomux.toml
twistd --pidfile laptop/twistd.pid --logfile laptop/twistd.log \
  gomux --config laptop/gomux.toml
