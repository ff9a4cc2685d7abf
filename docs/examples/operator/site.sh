mkdir site
echo 'Hello from the office.' > site/index.html
truncate --size 1G site/big.img
python3 -m http.server 8000 --bind 127.0.0.1 --directory site
