twistd gomux --config office/gomux.toml --check
twistd gomux --config laptop/gomux.toml --check
