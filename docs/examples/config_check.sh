twistd -n gomux --config gomux.toml --check
