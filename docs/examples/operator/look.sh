curl http://127.0.0.1:8080/
curl http://127.0.0.1:7100/healthz
curl --unix-socket laptop/status.sock http://localhost/healthz
