printf 'GET /hello.txt HTTP/1.0\r\n\r\n' |
    python -m gomux pipe gomux:tcp:a.example:7000:pskFile=gomux.psk
