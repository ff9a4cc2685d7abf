(umask 077; python -m gomux genpsk > gomux.psk)
mkdir public
echo hello from a file > public/hello.txt
