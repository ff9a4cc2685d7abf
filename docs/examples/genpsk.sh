(umask 077; python -m gomux genpsk > gomux.psk)
